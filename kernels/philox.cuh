// Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011), as in src/philox.rs: random bits as a function of a key, which
// is the seed, and of a counter. Masks use the counter [column / 4, row, step, site], lane column % 4.
#pragma once

// The four words at one counter.
__device__ __forceinline__ uint4 philox(unsigned long long seed, uint4 counter) {
    unsigned key_low = (unsigned)seed, key_high = (unsigned)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        unsigned first_high = __umulhi(0xD2511F53u, counter.x), first_low = 0xD2511F53u * counter.x;
        unsigned second_high = __umulhi(0xCD9E8D57u, counter.z), second_low = 0xCD9E8D57u * counter.z;
        counter =
            make_uint4(second_high ^ counter.y ^ key_low, second_low, first_high ^ counter.w ^ key_high, first_low);
        key_low += 0x9E3779B9u;
        key_high += 0xBB67AE85u;
    }
    return counter;
}
