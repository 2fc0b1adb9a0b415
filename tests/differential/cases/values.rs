//! Values for arguments and results, made from numbers.

use crate::cases::random::mix;
use wasmtime::{AsContextMut, Func, Val, ValType};

/// The lower half of a number.
#[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
pub(crate) fn low(number: u64) -> i32 {
    number as i32
}

/// Small numbers, which lead guests further than large ones.
pub(crate) fn value(ty: &ValType, number: u64) -> Val {
    let number = mix(number) % 100;
    #[expect(clippy::cast_precision_loss, reason = "is below 100")]
    match ty {
        ValType::I32 => Val::I32(low(number)),
        ValType::I64 => Val::I64(number.cast_signed()),
        ValType::F32 => (number as f32).into(),
        ValType::F64 => (number as f64).into(),
        other => other.default_value().unwrap_or(Val::I32(0)),
    }
}

/// Arguments for a function, and space for its results.
pub(crate) fn values(mut store: impl AsContextMut, func: Func, number: u64) -> (Vec<Val>, Vec<Val>) {
    let ty = func.ty(&mut store);
    let arguments = ty.params().enumerate().map(|(place, ty)| value(&ty, number.wrapping_add(place as u64))).collect();
    let results = ty.results().map(|ty| value(&ty, 0)).collect();
    (arguments, results)
}

/// The signature in `IMPORTS`, as wasmtime's types.
pub(crate) fn signature(import: usize) -> (Vec<ValType>, Vec<ValType>) {
    let (externref, funcref) = (ValType::EXTERNREF, ValType::FUNCREF);
    match import {
        0 => (vec![], vec![]),
        1 => (vec![ValType::I32], vec![ValType::I32]),
        2 => (vec![ValType::I64, ValType::F64], vec![ValType::I64]),
        3 => (vec![ValType::I32; 3], vec![ValType::I32, ValType::I64]),
        4 => (vec![ValType::F32], vec![ValType::F64]),
        5 => (vec![externref.clone(), ValType::I32], vec![externref]),
        6 => (vec![funcref], vec![ValType::I32]),
        _ => (vec![], vec![ValType::I64]),
    }
}
