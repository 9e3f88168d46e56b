//! The gate on the CPU.

use super::OP;
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::simd::simd;
use crate::ops::host::{Host, rows_of, rows_per_task};
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

pub fn forward<T: Float>(ctx: &Context, g: &mut Tensor, x: &Tensor, z: &mut Tensor) -> Result<()> {
    let host = Host::new(OP, ctx);
    let mut g = host.write::<T>(g)?;
    let x = host.read::<T>(x)?;
    let mut z = host.write::<T>(z)?;
    let (cols, g_ld, z_ld) = (z.cols, g.ld, z.ld);
    let size = rows_per_task(cols);
    let blocks = g.par_row_blocks(size).zip(z.par_row_blocks(size));
    blocks.for_each(|((first, g), (_, z))| {
        simd(|| {
            let rows = rows_of(g, cols, g_ld).zip(rows_of(z, cols, z_ld));
            for (i, (g, z)) in rows.enumerate() {
                for ((g, z), &x) in g.iter_mut().zip(z).zip(x.row(first + i)) {
                    *g = g.sigmoid();
                    *z = *g * x;
                }
            }
        });
    });
    Ok(())
}

pub fn backward<T: Float>(
    ctx: &Context,
    g: &Tensor,
    x: &Tensor,
    dz: &Tensor,
    dg: &mut Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let (g, x, dz) = (host.read::<T>(g)?, host.read::<T>(x)?, host.read::<T>(dz)?);
    let mut dg = host.write::<T>(dg)?;
    let mut dx = host.write::<T>(dx)?;
    let (cols, dg_ld, dx_ld) = (dz.cols, dg.ld, dx.ld);
    let size = rows_per_task(cols);
    let blocks = dg.par_row_blocks(size).zip(dx.par_row_blocks(size));
    blocks.for_each(|((first, dg), (_, dx))| {
        simd(|| {
            let rows = rows_of(dg, cols, dg_ld).zip(rows_of(dx, cols, dx_ld));
            for (i, (dg, dx)) in rows.enumerate() {
                let (g, x, dz) = (g.row(first + i), x.row(first + i), dz.row(first + i));
                let outputs = dg.iter_mut().zip(dx);
                for (((dg, dx), (&g, &x)), &dz) in outputs.zip(g.iter().zip(x)).zip(dz) {
                    *dx = dz * g;
                    *dg = dz * x * g * (T::one() - g);
                }
            }
        });
    });
    Ok(())
}
