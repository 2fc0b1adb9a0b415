//! The one table of arities: functions of 0 to 15 parameters.

/// Calls a macro once for each arity with `number, wrap_async name, get name, parameters with their types`.
macro_rules! for_each_arity {
    ($each:ident) => {
        $each!(0 wrap_async0 get0);
        $each!(1 wrap_async1 get1 a1: A1);
        $each!(2 wrap_async2 get2 a1: A1, a2: A2);
        $each!(3 wrap_async3 get3 a1: A1, a2: A2, a3: A3);
        $each!(4 wrap_async4 get4 a1: A1, a2: A2, a3: A3, a4: A4);
        $each!(5 wrap_async5 get5 a1: A1, a2: A2, a3: A3, a4: A4, a5: A5);
        $each!(6 wrap_async6 get6 a1: A1, a2: A2, a3: A3, a4: A4, a5: A5, a6: A6);
        $each!(7 wrap_async7 get7 a1: A1, a2: A2, a3: A3, a4: A4, a5: A5, a6: A6, a7: A7);
        $each!(8 wrap_async8 get8 a1: A1, a2: A2, a3: A3, a4: A4, a5: A5, a6: A6, a7: A7, a8: A8);
        $each!(9 wrap_async9 get9 a1: A1, a2: A2, a3: A3, a4: A4, a5: A5, a6: A6, a7: A7, a8: A8, a9: A9);
        $each!(10 wrap_async10 get10 a1: A1, a2: A2, a3: A3, a4: A4, a5: A5, a6: A6, a7: A7, a8: A8, a9: A9,
            a10: A10);
        $each!(11 wrap_async11 get11 a1: A1, a2: A2, a3: A3, a4: A4, a5: A5, a6: A6, a7: A7, a8: A8, a9: A9,
            a10: A10, a11: A11);
        $each!(12 wrap_async12 get12 a1: A1, a2: A2, a3: A3, a4: A4, a5: A5, a6: A6, a7: A7, a8: A8, a9: A9,
            a10: A10, a11: A11, a12: A12);
        $each!(13 wrap_async13 get13 a1: A1, a2: A2, a3: A3, a4: A4, a5: A5, a6: A6, a7: A7, a8: A8, a9: A9,
            a10: A10, a11: A11, a12: A12, a13: A13);
        $each!(14 wrap_async14 get14 a1: A1, a2: A2, a3: A3, a4: A4, a5: A5, a6: A6, a7: A7, a8: A8, a9: A9,
            a10: A10, a11: A11, a12: A12, a13: A13, a14: A14);
        $each!(15 wrap_async15 get15 a1: A1, a2: A2, a3: A3, a4: A4, a5: A5, a6: A6, a7: A7, a8: A8, a9: A9,
            a10: A10, a11: A11, a12: A12, a13: A13, a14: A14, a15: A15);
    };
}
pub(crate) use for_each_arity;
