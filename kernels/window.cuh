// Loaders that gather what a window sees of images: the operands of convolutions as implicit matrices.
//
// A thread copies one chunk of k (WindowRows) or of columns (WindowColumns) in some lines. Where the chunk is in the
// window, (r, s, c), is kept from step to step and moved on by additions; where a line's pixel is in the image is computed
// once (WindowRows) or moved on too (WindowColumns). No step divides. Chunks of 16 bytes lie within one pixel, where the
// channels are a multiple of theirs; else (`chunks` false) each element is found by itself, with divisions.
#pragma once
#include "source.cuh"

namespace tile {

// Images, and the taps (r, s) of a window over them.
struct Images {
    int h, w, c, ld;
    int r, s;
};

// Where a window lies: the image's first row among all rows, and the pixel under its tap (0, 0).
struct Place {
    int image, top, left;
};

template <class E>
__device__ __forceinline__ void copy_element(unsigned to, const E* from, bool there) {
    if constexpr (sizeof(E) == 4) {
        copy_4(to, from, there ? 4 : 0);
    } else {
        shared_store(to, there ? *from : __float2bfloat16(0.0f));
    }
}

// The element at tap (r, s), channel c, of the window at `place`, or null outside the image.
template <class E>
__device__ __forceinline__ const E* element_at(const E* x, const Images& of, const Place& place, int r, int s, int c) {
    const int h = place.top + r, w = place.left + s;
    if ((unsigned)h >= (unsigned)of.h || (unsigned)w >= (unsigned)of.w) return nullptr;
    return x + (size_t)((place.image + h) * of.w + w) * of.ld + c;
}

// Rows are windows, k is (r, s, c) (Order::K). SIGN -1: tap (r, s) lies above and to the left instead.
template <class Side, int THREADS, int SIGN>
struct WindowRows {
    using Element = typename Side::Element;
    using Lines = tile::Lines<Side, THREADS>;
    const Element* x;
    Images of;
    Place places[Lines::COUNT];
    int r = 0, s = 0, c;
    bool chunks;

    // `place(row)` is where row `row` of the tile is, called only for rows below `rows`.
    template <class PlaceOf>
    __device__ __forceinline__ WindowRows(const Element* x, const Images& of, int rows, bool chunks, PlaceOf place)
        : x(x), of(of), c(Lines::first()), chunks(chunks) {
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) places[i] = place(min(Lines::line(i), rows - 1));
        wrap();
    }

    // Copies the next step's k, which begins at `k` and of which `left` are there.
    __device__ __forceinline__ void copy(unsigned to, int k, int left) {
        if (!chunks) return copy_elements(to, k, left);
        const bool more = Lines::first() < left;
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            const Element* from = more ? element_at(x, of, places[i], SIGN * r, SIGN * s, c) : nullptr;
            copy_16(to + Lines::place(i), from == nullptr ? x : from, from == nullptr ? 0 : 16);
        }
        c += Side::DEPTH;
        wrap();
    }

 private:
    __device__ __forceinline__ void wrap() {
        while (c >= of.c && r < of.r) {
            c -= of.c;
            if (++s == of.s) {
                s = 0;
                ++r;
            }
        }
    }

    __device__ __forceinline__ void copy_elements(unsigned to, int k, int left) const {
#pragma unroll 1
        for (int e = 0; e < Side::VECTOR; ++e) {
            const int at = k + Lines::first() + e, tap = at / of.c;
            const bool more = Lines::first() + e < left;
#pragma unroll
            for (int i = 0; i < Lines::COUNT; ++i) {
                const Element* from = nullptr;
                if (more)
                    from = element_at(x, of, places[i], SIGN * (tap / of.s), SIGN * (tap % of.s), at - tap * of.c);
                copy_element(
                    to + Lines::place(i) + e * (int)sizeof(Element), from == nullptr ? x : from, from != nullptr);
            }
        }
    }
};

// Lines are windows one after the other, columns are (r, s, c) (Order::MN).
template <class Side, int THREADS>
struct WindowColumns {
    using Element = typename Side::Element;
    using Lines = tile::Lines<Side, THREADS>;
    const Element* x;
    Images of;
    int p[Lines::COUNT], q[Lines::COUNT], image[Lines::COUNT];  // of the next line to copy; image counts images
    int out_h, out_w, stride, padding;
    int column, columns;
    bool chunks;

    // Windows from `start` on, `out_h` x `out_w` an image; columns from `column` on, of `columns`.
    __device__ __forceinline__ WindowColumns(
        const Element* x, const Images& of, int out_h, int out_w, int stride, int padding, int start, int column,
        int columns, bool chunks)
        : x(x),
          of(of),
          out_h(out_h),
          out_w(out_w),
          stride(stride),
          padding(padding),
          column(column + Lines::first()),
          columns(columns),
          chunks(chunks) {
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            const int window = start + Lines::line(i), row = window / out_w;
            q[i] = window - row * out_w;
            image[i] = row / out_h;
            p[i] = row - image[i] * out_h;
        }
    }

    __device__ __forceinline__ void copy(unsigned to, int, int left) {
        const int count = chunks ? 1 : Side::VECTOR;
#pragma unroll 1
        for (int e = 0; e < count; ++e) {
            const int tap = (column + e) / of.c, c = column + e - tap * of.c, r = tap / of.s, s = tap - r * of.s;
            const bool there = column + e < columns;
#pragma unroll
            for (int i = 0; i < Lines::COUNT; ++i) {
                const Place place{image[i] * of.h, p[i] * stride - padding, q[i] * stride - padding};
                const Element* from = nullptr;
                if (there && Lines::line(i) < left) from = element_at(x, of, place, r, s, c);
                const unsigned at = to + Lines::place(i) + e * (int)sizeof(Element);
                if (chunks) {
                    copy_16(at, from == nullptr ? x : from, from == nullptr ? 0 : 16);
                } else {
                    copy_element(at, from == nullptr ? x : from, from != nullptr);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            q[i] += Side::DEPTH;
            while (q[i] >= out_w) {
                q[i] -= out_w;
                if (++p[i] == out_h) {
                    p[i] = 0;
                    ++image[i];
                }
            }
        }
    }
};

}  // namespace tile
