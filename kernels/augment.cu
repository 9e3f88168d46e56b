// y_b = a photo, flipped, rotated about its centre by nearest neighbours, and grayed: the bits of Pillow's transformation.
//
// Column b of `changes` (7, B) says which photo, which effects (bit 0: flip, bit 1: gray), and where the rotation finds pixel
// (x, y) of the result: at (x0 + x dx_x + y dx_y, y0 + x dy_x + y dx_x), in 16 fractional bits. A place outside the photo
// is black, and so is all of a photo that does not exist.
//
// Grid: x over the pixels of an image, y over B. A thread takes four neighbours of a row where rows have a multiple of four, so that its 12 bytes
// are three whole words, else one pixel. Bytes: the photo and the result once; neighbours of a row come out of neighbouring
// places, which share sectors. Bound: memory, 0.4 MB an image of 256x256, beside an encoder that moves hundreds of them.
#include "vector.cuh"

constexpr int FLIP = 1;
constexpr int GRAY = 2;

// Pillow's mode L, ITU-R 601-2.
__device__ __forceinline__ uchar3 gray(uchar3 of) {
    const u8 luma = (u8)((19595u * of.x + 38470u * of.y + 7471u * of.z + 32768u) >> 16);
    return {luma, luma, luma};
}

template <int PIXELS>
__device__ __forceinline__ void augment(
    const u8* photos, const u32* changes, u8* y, int photo_count, int height, int width, int changes_ld) {
    const int first = (blockIdx.x * THREADS + threadIdx.x) * PIXELS, sample = blockIdx.y;
    if (first >= height * width) return;
    u32 change[7];
#pragma unroll
    for (int i = 0; i < 7; ++i) change[i] = changes[(size_t)i * changes_ld + sample];
    const auto [photo, effects, x0, y0, dx_x, dx_y, dy_x] = change;
    const u8* from = photos + (size_t)photo * height * width * 3;
    const int row = first / width, col = first - row * width;
    int at_x = (int)(x0 + col * dx_x + row * dx_y), at_y = (int)(y0 + col * dy_x + row * dx_x);
    uchar3 result[PIXELS];
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) {
        // A negative place is a large one without its sign.
        const unsigned column = at_x >> 16, line = at_y >> 16;
        result[i] = {0, 0, 0};
        if (column < (unsigned)width && line < (unsigned)height && photo < (unsigned)photo_count) {
            const int flipped = effects & FLIP ? width - 1 - column : column;
            const u8* pixel = from + ((size_t)line * width + flipped) * 3;
            result[i] = {pixel[0], pixel[1], pixel[2]};
            if (effects & GRAY) result[i] = gray(result[i]);
        }
        at_x += dx_x, at_y += dy_x;
    }
    u8* to = y + ((size_t)sample * height * width + first) * 3;
    if constexpr (PIXELS == 1) {
        to[0] = result[0].x, to[1] = result[0].y, to[2] = result[0].z;
    } else {
        u32* words = reinterpret_cast<u32*>(to);
        const auto [p, q, r, s] = result;
        words[0] = p.x | p.y << 8 | p.z << 16 | (u32)q.x << 24;
        words[1] = q.y | q.z << 8 | r.x << 16 | (u32)r.y << 24;
        words[2] = r.z | s.x << 8 | s.y << 16 | (u32)s.z << 24;
    }
}

#define AUGMENT(NAME, PIXELS)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) augment_forward_##NAME(                              \
        const u8* photos, const u32* changes, u8* y, int photo_count, int height, int width, int changes_ld) { \
        augment<PIXELS>(photos, changes, y, photo_count, height, width, changes_ld);                           \
    }
AUGMENT(one, 1)
AUGMENT(four, 4)
