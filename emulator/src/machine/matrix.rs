//! `mma.sync` over a warp's fragments.
//!
//! The layouts, where T is the lane and i the element of the lane:
//!
//! - C and D: row T/4 + 8·(i/2), column 2·(T%4) + (i&1).
//! - A with 16-bit elements, i from 0 to 7: row T/4 + 8·((i/2)&1), k = 2·(T%4) + (i&1) + 8·(i/4).
//! - B with 16-bit elements, i from 0 to 3: column T/4, k = 2·(T%4) + (i&1) + 8·(i/2).
//!
//! Elements of 32 and 8 bits follow the same pattern with 1 and 4 elements per register.

use super::lanes::{FULL, File, LANES};
use super::numeric::{BF16, F16};
use super::op::{Mma, Round, Type};

/// Largest k, with 8-bit elements.
const K: usize = 32;

/// D = A·B + C. `slots` holds the registers of D, A, B and C. Float products are summed in f32 with fused
/// multiply-add in the order of k.
#[inline(always)]
pub fn mma(file: &mut File, slots: &[u32], mma: Mma) {
    let (a, b, c) = mma.registers();
    let (d_slots, rest) = slots.split_at(c);
    let (a_slots, rest) = rest.split_at(a);
    let (b_slots, c_slots) = rest.split_at(b);
    match mma.accumulate {
        Type::S32 => integer(file, [d_slots, a_slots, b_slots, c_slots], mma),
        _ => float(file, [d_slots, a_slots, b_slots, c_slots], mma),
    }
}

#[inline(always)]
fn float(file: &mut File, [d_slots, a_slots, b_slots, c_slots]: [&[u32]; 4], mma: Mma) {
    let k = mma.k as usize;
    let mut a = [[0f32; 16]; K];
    let mut b = [[0f32; 8]; K];
    let per = (4 / mma.operand.bytes()) as usize;
    for (register, &slot) in a_slots.iter().enumerate() {
        let row = 8 * (register & 1);
        let column = 4 * per * (register / 2);
        for (lane, &bits) in file.get::<u32>(slot).iter().enumerate() {
            for part in 0..per {
                a[column + per * (lane % 4) + part][row + lane / 4] =
                    element(bits, part, mma.operand);
            }
        }
    }
    for (register, &slot) in b_slots.iter().enumerate() {
        for (lane, &bits) in file.get::<u32>(slot).iter().enumerate() {
            for part in 0..per {
                b[4 * per * register + per * (lane % 4) + part][lane / 4] =
                    element(bits, part, mma.operand);
            }
        }
    }
    let mut sum = [[0f32; 8]; 16];
    accumulators(file, c_slots, mma, |row, column, value| {
        sum[row][column] = value
    });
    for k in 0..k {
        let b = b[k];
        for (row, sum) in sum.iter_mut().enumerate() {
            let a = a[k][row];
            for n in 0..8 {
                sum[n] = a.mul_add(b[n], sum[n]);
            }
        }
    }
    if mma.accumulate == Type::F16 {
        for (half, &slot) in d_slots.iter().enumerate() {
            let narrow = |x: f32| F16.narrow(f64::from(x), Round::Near);
            let out = std::array::from_fn(|lane| {
                let (row, column) = (lane / 4 + 8 * half, 2 * (lane % 4));
                narrow(sum[row][column]) | narrow(sum[row][column + 1]) << 16
            });
            file.put::<u32>(slot, FULL, &out);
        }
    } else {
        for (i, &slot) in d_slots.iter().enumerate() {
            let out: [f32; LANES] =
                std::array::from_fn(|lane| sum[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + (i & 1)]);
            file.put::<f32>(slot, FULL, &out);
        }
    }
}

#[inline(always)]
fn accumulators(file: &File, slots: &[u32], mma: Mma, mut put: impl FnMut(usize, usize, f32)) {
    for (i, &slot) in slots.iter().enumerate() {
        for (lane, &bits) in file.get::<u32>(slot).iter().enumerate() {
            if mma.accumulate == Type::F16 {
                let (row, column) = (lane / 4 + 8 * i, 2 * (lane % 4));
                put(row, column, F16.widen(bits & 0xffff));
                put(row, column + 1, F16.widen(bits >> 16));
            } else {
                put(
                    lane / 4 + 8 * (i / 2),
                    2 * (lane % 4) + (i & 1),
                    f32::from_bits(bits),
                );
            }
        }
    }
}

#[inline(always)]
fn element(bits: u32, part: usize, ty: Type) -> f32 {
    match ty {
        Type::Bf16 => BF16.widen(bits >> (16 * part) & 0xffff),
        Type::F16 => F16.widen(bits >> (16 * part) & 0xffff),
        // The hardware reads the upper 19 bits.
        _ => f32::from_bits(bits & !0x1fff),
    }
}

fn integer(file: &mut File, [d_slots, a_slots, b_slots, c_slots]: [&[u32]; 4], mma: Mma) {
    let byte = |bits: u32, part: usize, ty: Type| {
        let byte = (bits >> (8 * part)) as u8;
        if ty == Type::S8 {
            i32::from(byte as i8)
        } else {
            i32::from(byte)
        }
    };
    let (mut a, mut b) = ([[0i32; K]; 16], [[0i32; K]; 8]);
    for (register, &slot) in a_slots.iter().enumerate() {
        for (lane, &bits) in file.get::<u32>(slot).iter().enumerate() {
            for part in 0..4 {
                let k = 16 * (register / 2) + 4 * (lane % 4) + part;
                a[lane / 4 + 8 * (register & 1)][k] = byte(bits, part, mma.operand);
            }
        }
    }
    for (register, &slot) in b_slots.iter().enumerate() {
        for (lane, &bits) in file.get::<u32>(slot).iter().enumerate() {
            for part in 0..4 {
                b[lane / 4][16 * register + 4 * (lane % 4) + part] =
                    byte(bits, part, mma.b_operand);
            }
        }
    }
    // All of C is read before any of D is written, because they may share registers.
    let sums: Vec<[i32; LANES]> = c_slots.iter().map(|&slot| *file.get::<i32>(slot)).collect();
    for (i, (&d, c)) in d_slots.iter().zip(sums).enumerate() {
        let out = std::array::from_fn(|lane| {
            let (row, column) = (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + (i & 1));
            (0..mma.k as usize).fold(c[lane], |sum, k| {
                sum.wrapping_add(a[row][k].wrapping_mul(b[column][k]))
            })
        });
        file.put::<i32>(d, FULL, &out);
    }
}
