//! The kernels of `kernels/*.cu`, a module for every file, a typed constant for every kernel; written by build.rs.

#![allow(clippy::type_complexity)] // the types are the kernels' parameter lists

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
