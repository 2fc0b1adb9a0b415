//! Types of numbers and of functions.

use crate::cases::choices::Choices;
use std::fmt::Write as _;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ty {
    I32,
    I64,
    F32,
    F64,
}

pub(super) const TYPES: [Ty; 4] = [Ty::I32, Ty::I64, Ty::F32, Ty::F64];

impl Ty {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Signature {
    pub(super) params: Vec<Ty>,
    pub(super) results: Vec<Ty>,
}

impl Signature {
    fn new(params: &[Ty], results: &[Ty]) -> Self {
        Self { params: params.to_vec(), results: results.to_vec() }
    }

    pub(super) fn any(choices: &mut Choices<'_>) -> Self {
        let [i32, i64, f32, f64] = TYPES;
        match choices.below(6) {
            0 => Self::new(&[], &[]),
            1 => Self::new(&[i32], &[i32]),
            2 => Self::new(&[i64, i32], &[i32, f64]),
            3 => Self::new(&[f32, f64], &[f32]),
            _ => {
                let mut some = |max| (0..choices.below(max)).map(|_| choices.pick(&TYPES)).collect();
                Self { params: some(5), results: some(4) }
            }
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (word, types) in [("param", &self.params), ("result", &self.results)] {
            if !types.is_empty() {
                let names: Vec<_> = types.iter().map(|ty| ty.name()).collect();
                let _ = write!(text, " ({word} {})", names.join(" "));
            }
        }
        text
    }
}
