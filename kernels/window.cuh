// Loaders that gather what a window sees of images: the operands of convolutions as implicit matrices.
//
// A thread copies one chunk of k (WindowRows) or of columns (WindowColumns) in some lines. Chunks of 16 bytes lie within one
// pixel, where the channels are a multiple of theirs; else (`chunks` false) each element is found by itself.
//
// Whole steps neither divide nor compare with the image's borders more than they must. WindowRows: where the channels are a
// multiple of a step's k, all chunks of a step are at the same tap; a line has a bit for each tap that is outside the
// image, and the pixel's address is that of tap (0, 0) plus a distance that all lines share. WindowColumns: a thread stays
// at one tap, and its pixels move on by additions.
#pragma once
#include "source.cuh"

namespace tile {

// Images, and the taps (r, s) of a window over them.
struct Images {
    int h, w, c, ld;
    int r, s;

    __device__ __forceinline__ bool inside(int row, int column) const {
        return (unsigned)row < (unsigned)h && (unsigned)column < (unsigned)w;
    }
};

// Where a window lies: the image's first row among all rows, and the pixel under its tap (0, 0).
struct Place {
    int image, top, left;
};

// Bits of taps that are outside an image: a row of taps has one of the lower half, a column one of the upper.
constexpr int MOST_TAPS = 16;

__device__ __forceinline__ unsigned tap_bits(int r, int s) { return 1u << r | 1u << MOST_TAPS << s; }

// Of `count` taps from `first` on, those outside 0 .. size - 1.
template <int SIGN>
__device__ __forceinline__ unsigned taps_outside(int first, int count, int size) {
    unsigned bits = 0;
    for (int i = 0; i < count; ++i) bits |= (unsigned)((unsigned)(first + SIGN * i) >= (unsigned)size) << i;
    return bits;
}

// Copies element e of a chunk, or the whole chunk, from `found`; zeros where that is null. `any` is some address of the tensor.
template <class E>
__device__ __forceinline__ void copy_found(unsigned to, int e, const E* found, const E* any, bool chunk) {
    const bool there = found != nullptr;
    if (chunk) {
        copy_16_if(to, there ? found : any, there);
    } else if constexpr (sizeof(E) == 4) {
        copy_4(to + 4 * e, there ? found : any, there ? 4 : 0);
    } else {
        shared_store(to + 2 * e, there ? *found : __float2bfloat16(0.0f));
    }
}

// Rows are windows, k is (r, s, c) (Order::K). SIGN -1: tap (r, s) lies above and to the left instead.
template <class Side, int THREADS, int SIGN>
struct WindowRows {
    using Element = typename Side::Element;
    using Lines = tile::Lines<Side, THREADS>;
    const Element* x;
    Images of;
    const Element* from[Lines::COUNT];  // this thread's chunk at tap (0, 0)
    unsigned outside[Lines::COUNT];     // tap_bits
    unsigned start;
    bool chunks;
    // Of the next step, where whole(): its tap, its first channel, and how far it is from tap (0, 0), channel 0.
    int r = 0, s = 0, channel = 0, distance = 0;

    // `place(row)` is where row `row` of the tile is, called only for rows below `rows`.
    template <class PlaceOf>
    __device__ __forceinline__ WindowRows(const Element* x, const Images& of, int rows, bool chunks, PlaceOf place)
        : x(x), of(of), start(Lines::start()), chunks(chunks) {
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            const Place at = place(min(Lines::line(i), rows - 1));
            from[i] = kept(advanced(x + Lines::first(), (at.image + at.top) * of.w + at.left, of.ld));
            outside[i] = taps_outside<SIGN>(at.top, of.r, of.h) | taps_outside<SIGN>(at.left, of.s, of.w) << MOST_TAPS;
        }
    }

    __device__ __forceinline__ bool whole() const {
        const long long farthest = (long long)of.r * of.w * of.ld;
        return chunks && of.c % Side::DEPTH == 0 && farthest < 1 << 30;
    }

    // Copies the next step, which has all its k.
    __device__ __forceinline__ void copy_whole(unsigned to, int) {
        to += start;
        const unsigned tap = tap_bits(r, s);
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            copy_16_if(Lines::place(to, i), from[i] + distance, (outside[i] & tap) == 0);
        }
        go_on();
    }

    // Copies the next step, which begins at `k` and of which `left` are there.
    __device__ __forceinline__ void copy(unsigned to, int k, int left) {
        to += start;
        const int count = chunks ? 1 : Side::VECTOR;
#pragma unroll 1
        for (int e = 0; e < count; ++e) {
            const int at = k + Lines::first() + e, tap = at / of.c, r = tap / of.s, s = tap - r * of.s;
            const bool more = Lines::first() + e < left;
            const long long to_pixel = (long long)(SIGN * (r * of.w + s)) * of.ld + (at - tap * of.c) - Lines::first();
#pragma unroll
            for (int i = 0; i < Lines::COUNT; ++i) {
                const bool there = more && !(outside[i] & tap_bits(r, s));
                copy_found(Lines::place(to, i), e, there ? from[i] + to_pixel : nullptr, x, chunks);
            }
        }
        go_on();
    }

 private:
    __device__ __forceinline__ void go_on() {
        channel += Side::DEPTH;
        distance += Side::DEPTH;
        if (channel < of.c) return;
        channel = 0;
        distance += SIGN * of.ld - of.c;
        if (++s < of.s) return;
        s = 0;
        ++r;
        distance += SIGN * (of.w - of.s) * of.ld;
    }
};

// Lines are windows one after the other, columns are (r, s, c) (Order::MN).
template <class Side, int THREADS>
struct WindowColumns {
    using Element = typename Side::Element;
    using Lines = tile::Lines<Side, THREADS>;
    const Element* x;
    Images of;
    int column, columns;
    int r, s, c;  // of this thread's first column
    // The pixel under that tap in each line's next window: its place in the image, and its number among all.
    int h[Lines::COUNT], w[Lines::COUNT], pixel[Lines::COUNT];
    // How they change from step to step, at the end of a line of windows and at the end of an image, and where those are.
    int step_h, step_w, step_pixel;
    int line_h, line_w, line_pixel;
    int image_h, image_pixel;
    int end_h, end_w;
    unsigned start;
    bool chunks;

    // Windows from `first` on, `out_h` x `out_w` an image; columns from `column` on, of `columns`.
    __device__ __forceinline__ WindowColumns(
        const Element* x, const Images& of, int out_h, int out_w, int stride, int padding, int first, int column,
        int columns, bool chunks)
        : x(x), of(of), column(column + Lines::first()), columns(columns), start(Lines::start()), chunks(chunks) {
        const int tap = this->column / of.c;
        c = this->column - tap * of.c, r = tap / of.s, s = tap - r * of.s;
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            const int window = first + Lines::line(i), line = window / out_w, image = line / out_h;
            h[i] = (line - image * out_h) * stride - padding + r;
            w[i] = (window - line * out_w) * stride - padding + s;
            pixel[i] = (image * of.h + h[i]) * of.w + w[i];
        }
        const int lines = Side::DEPTH / out_w, images = lines / out_h;
        step_h = (lines - images * out_h) * stride, step_w = (Side::DEPTH - lines * out_w) * stride;
        step_pixel = (images * of.h + step_h) * of.w + step_w;
        line_h = stride, line_w = -out_w * stride, line_pixel = line_h * of.w + line_w;
        image_h = -out_h * stride, image_pixel = (of.h + image_h) * of.w;
        end_h = out_h * stride - padding + r, end_w = out_w * stride - padding + s;
    }

    __device__ __forceinline__ bool whole() const { return chunks; }

    // Copies the next step, which has all its windows.
    __device__ __forceinline__ void copy_whole(unsigned to, int) {
        to += start;
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            const bool there = of.inside(h[i], w[i]) && column < columns;
            copy_16_if(Lines::place(to, i), advanced(x + c, pixel[i], of.ld), there);
            go_on(i);
        }
    }

    // Copies the next step, of which `left` windows are there.
    __device__ __forceinline__ void copy(unsigned to, int, int left) {
        to += start;
        const int count = chunks ? 1 : Side::VECTOR;
#pragma unroll 1
        for (int e = 0; e < count; ++e) {
            const int tap = (column + e) / of.c, next_r = tap / of.s - r, next_s = tap % of.s - s;
            const Element* found = advanced(x + (column + e - tap * of.c), next_r * of.w + next_s, of.ld);
            const bool more = column + e < columns;
#pragma unroll
            for (int i = 0; i < Lines::COUNT; ++i) {
                const bool there = more && of.inside(h[i] + next_r, w[i] + next_s) && Lines::line(i) < left;
                copy_found(Lines::place(to, i), e, there ? advanced(found, pixel[i], of.ld) : nullptr, x, chunks);
            }
        }
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) go_on(i);
    }

 private:
    // A step is less than a line and an image, or some whole ones and less, so that one turn of each is enough.
    __device__ __forceinline__ void go_on(int i) {
        h[i] += step_h, w[i] += step_w, pixel[i] += step_pixel;
        if (w[i] >= end_w) h[i] += line_h, w[i] += line_w, pixel[i] += line_pixel;
        if (h[i] >= end_h) h[i] += image_h, pixel[i] += image_pixel;
    }
};

}  // namespace tile
