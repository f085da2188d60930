//! Functions of the public-key engine by their number. What the parts of a number mean inside the firmware does not
//! matter; drivers treat it as a name.

/// What a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Init,
    Dh,
    DhTwo,
    RsaPublic,
    RsaPrivate,
    RsaPrivateCrt,
    RsaKey,
    RsaKeyCrt,
    ModExp,
    ModInv,
    Fermat,
    GcdTest,
    MillerRabin,
    Lucas,
    DsaGenerator { q: u32 },
    DsaPublic { q: u32 },
    DsaSign { q: u32 },
    DsaSignR { q: u32 },
    DsaSignS,
    DsaVerify { q: u32 },
    EcMultiply,
    EcVerifyPoint,
    EcdsaSign,
    EcdsaSignR,
    EcdsaSignS,
    EcdsaVerify,
    NistMultiply,
    NistGenerator,
    NistSign,
    MontgomeryMultiply,
    MontgomeryGenerator,
    EdwardsMultiply,
    EdwardsGenerator,
    Sm2Sign,
    Sm2Verify,
    Sm2Encrypt,
    Sm2Multiply,
    Sm2Decrypt,
    Sm2Generator,
    Sm2VerifyPoint,
}

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) op: Op,
    /// What its name says: the size of a modulus, or of the coordinates of a curve.
    pub(super) bits: u32,
}

/// Numbers and sizes, by what they do.
static FUNCTIONS: [(Op, &[(u32, u32)]); 45] = [
    (Op::Init, &[(0x0806_169f, 64)]),
    (
        Op::Dh,
        &[
            (0x210c_1a1b, 768),
            (0x290c_1a32, 1024),
            (0x390c_1a49, 1536),
            (0x4d0c_1a60, 2048),
            (0x510c_1a77, 3072),
            (0x690c_1a8e, 4096),
            (0xcd0d_3636, 8192),
        ],
    ),
    (
        Op::DhTwo,
        &[
            (0x1c0b_1a10, 768),
            (0x220b_1a27, 1024),
            (0x2e0b_1a3e, 1536),
            (0x3e0b_1a55, 2048),
            (0x3a0b_1a6c, 3072),
            (0x4a0b_1a83, 4096),
            (0x8d0b_3626, 8192),
        ],
    ),
    (
        Op::RsaPublic,
        &[
            (0x1c16_1b21, 512),
            (0x3511_1bf7, 1024),
            (0x4d11_1cdc, 1536),
            (0x6e11_1dba, 2048),
            (0x7d11_1ea3, 3072),
            (0xa510_1f7e, 4096),
            (0xc313_35c6, 8192),
        ],
    ),
    (
        Op::RsaPrivate,
        &[
            (0x1c16_1b3c, 512),
            (0x3511_1c12, 1024),
            (0x4d11_1cf7, 1536),
            (0x6e11_1dda, 2048),
            (0x7d11_1ebe, 3072),
            (0xa510_1f98, 4096),
            (0xc313_35e6, 8192),
        ],
    ),
    (
        Op::RsaPrivateCrt,
        &[
            (0x1c13_1b57, 512),
            (0x2613_1c2d, 1024),
            (0x4511_1d12, 1536),
            (0x5912_1dfa, 2048),
            (0x8112_1ed9, 3072),
            (0xb111_1fb2, 4096),
            (0xc913_3606, 8192),
        ],
    ),
    (
        Op::RsaKey,
        &[
            (0x191d_1a9a, 512),
            (0x3618_1b71, 1024),
            (0x531d_1c46, 1536),
            (0x7218_1d2e, 2048),
            (0x6019_1e16, 3072),
            (0x7d1f_1ef6, 4096),
        ],
    ),
    (
        Op::RsaKeyCrt,
        &[
            (0x1940_1acc, 512),
            (0x4045_1b9e, 1024),
            (0x3239_1c78, 1536),
            (0x4234_1d5b, 2048),
            (0x6833_1e45, 3072),
            (0x9125_1f27, 4096),
        ],
    ),
    (
        Op::ModExp,
        &[
            (0x150c_2327, 512),
            (0x2d0c_233e, 1024),
            (0x410c_2355, 1536),
            (0x5e12_236c, 2048),
            (0x6016_2388, 2560),
            (0x650c_23a9, 3072),
            (0x8016_23c0, 3584),
            (0x850c_23e1, 4096),
            (0xc50c_3646, 8192),
        ],
    ),
    (
        // Odd moduli, and then even ones.
        Op::ModInv,
        &[
            (0x0906_23f8, 128),
            (0x0a06_23fe, 192),
            (0x0a06_2404, 256),
            (0x0b06_240a, 384),
            (0x0c06_2410, 512),
            (0x0e06_2416, 768),
            (0x1006_241c, 1024),
            (0x1806_2422, 1536),
            (0x2006_2428, 2048),
            (0x3006_242e, 3072),
            (0x4006_2434, 4096),
            (0x8807_3656, 8192),
            (0x0906_243a, 128),
            (0x0a06_2440, 192),
            (0x0a06_2446, 256),
            (0x0e0b_244c, 384),
            (0x110b_2457, 512),
            (0x170b_2462, 768),
            (0x1d0b_246d, 1024),
            (0x290b_2478, 1536),
            (0x350b_2483, 2048),
            (0x4d0b_248e, 3072),
            (0x650b_2499, 4096),
            (0xc80d_3666, 8192),
        ],
    ),
    (
        Op::Fermat,
        &[
            (0x0e11_20d8, 160),
            (0x1211_20ee, 512),
            (0x1916_2104, 512),
            (0x1911_2124, 768),
            (0x1f11_213a, 1024),
            (0x2b11_2150, 1536),
            (0x3b11_2166, 2048),
            (0x3a11_217c, 3072),
            (0x4a11_2192, 4096),
        ],
    ),
    (
        Op::GcdTest,
        &[
            (0x1920_1fcd, 192),
            (0x1920_1ff7, 256),
            (0x1920_2021, 384),
            (0x1b1b_204b, 512),
            (0x170c_2070, 768),
            (0x130f_2085, 1024),
            (0x1d0c_2094, 1536),
            (0x210c_20a5, 2048),
            (0x290c_20b6, 3072),
            (0x310c_20c7, 4096),
        ],
    ),
    (
        Op::MillerRabin,
        &[
            (0x0e12_21a8, 160),
            (0x1112_21bf, 512),
            (0x1818_2260, 512),
            (0x1d0d_21d6, 768),
            (0x250d_21ed, 1024),
            (0x350d_2204, 1536),
            (0x490d_221b, 2048),
            (0x4d0d_2232, 3072),
            (0x650d_2249, 4096),
        ],
    ),
    (
        Op::Lucas,
        &[
            (0x0e0c_227e, 160),
            (0x110c_228f, 512),
            (0x1617_230a, 512),
            (0x130c_22a0, 768),
            (0x150c_22b1, 1024),
            (0x190c_22c2, 1536),
            (0x1d0c_22d3, 2048),
            (0x250c_22e4, 3072),
            (0x6615_22f5, 4096),
        ],
    ),
    (Op::DsaGenerator { q: 192 }, &[(0x2614_24d4, 1024)]),
    (Op::DsaGenerator { q: 256 }, &[(0x4b14_26ed, 2048), (0x4f14_2816, 3072)]),
    (Op::DsaPublic { q: 192 }, &[(0x2912_24ed, 1024)]),
    (Op::DsaPublic { q: 256 }, &[(0x4d12_25ea, 2048), (0x5112_282f, 3072)]),
    (Op::DsaSign { q: 192 }, &[(0x301e_2540, 1024)]),
    (Op::DsaSign { q: 256 }, &[(0x571e_263d, 2048), (0x5a2a_274d, 2048), (0x6129_2874, 3072)]),
    (Op::DsaSignR { q: 192 }, &[(0x2c1c_2504, 1024)]),
    (Op::DsaSignR { q: 256 }, &[(0x511c_2601, 2048), (0x5b18_2706, 2048), (0x5928_2846, 3072)]),
    (Op::DsaSignS, &[(0x1214_2526, 160), (0x1514_2623, 224), (0x1514_2733, 256)]),
    (Op::DsaVerify { q: 192 }, &[(0x323a_2570, 1024)]),
    (Op::DsaVerify { q: 256 }, &[(0x6930_266d, 2048), (0x723a_2789, 2048), (0x7f43_28ae, 3072)]),
    (Op::EcMultiply, &[(0x4320_33a6, 256), (0x4125_3419, 512), (0x5511_346e, 521)]),
    (Op::EcVerifyPoint, &[(0x1f0c_33fc, 256), (0x2612_345c, 512), (0x0e07_34be, 521)]),
    (Op::EcdsaSign, &[(0x6a3c_2fa6, 256), (0x5a2b_3127, 512), (0x494a_329b, 521)]),
    (Op::EcdsaSignR, &[(0x431b_2f22, 256), (0x4e25_30b3, 512), (0x772c_31fe, 521)]),
    (Op::EcdsaSignS, &[(0x2b25_2f6d, 256), (0x2518_30fa, 512), (0x5234_3251, 521)]),
    (Op::EcdsaVerify, &[(0x325b_3023, 256), (0x3553_318a, 512), (0x554c_331f, 521)]),
    (Op::NistMultiply, &[(0x0a08_3546, 256), (0x0b08_3586, 384)]),
    (Op::NistGenerator, &[(0x1207_3556, 256), (0x0b07_3596, 384)]),
    (Op::NistSign, &[(0x1813_3566, 256), (0x1a13_35a6, 384)]),
    (Op::MontgomeryMultiply, &[(0x0a06_34c6, 255), (0x0c06_3506, 448)]),
    (Op::MontgomeryGenerator, &[(0x0a06_34d6, 255), (0x0c06_3516, 448)]),
    (Op::EdwardsMultiply, &[(0x100b_34e6, 255), (0x1a0b_3526, 448)]),
    (Op::EdwardsGenerator, &[(0x100a_34f6, 255), (0x1a0a_3536, 448)]),
    (Op::Sm2Sign, &[(0x2221_16fe, 256)]),
    (Op::Sm2Verify, &[(0x2924_1743, 256)]),
    (Op::Sm2Encrypt, &[(0x2522_1720, 256)]),
    (Op::Sm2Decrypt, &[(0x2017_16e6, 256)]),
    // The first phase of a key exchange does the same.
    (Op::Sm2Generator, &[(0x220f_16ae, 256), (0x220f_16be, 256)]),
    (Op::Sm2Multiply, &[(0x2117_16ce, 256)]),
    (Op::Sm2VerifyPoint, &[(0x1b07_16a6, 256)]),
];

impl Function {
    /// The function of a number.
    pub(super) fn find(id: u32) -> Option<Function> {
        FUNCTIONS.iter().find_map(|(op, numbers)| {
            let (_, bits) = numbers.iter().find(|(number, _)| *number == id)?;
            Some(Function { op: *op, bits: *bits })
        })
    }

    /// Octets of a number of full size: whole words of 64 bits.
    pub(super) fn len(&self) -> usize {
        match (self.op, self.bits) {
            // Its numbers are as long as those of the larger curve of the generic functions.
            (Op::MontgomeryMultiply | Op::MontgomeryGenerator, 448) => 64,
            (Op::EdwardsMultiply | Op::EdwardsGenerator, 448) => 64,
            (_, bits) => bits.div_ceil(64) as usize * 8,
        }
    }

    /// Octets of each input and each output.
    pub(super) fn shape(&self) -> (Vec<usize>, Vec<usize>) {
        let n = self.len();
        let half = n / 2;
        let order = |q: u32| q as usize / 8;
        match self.op {
            Op::Init => (vec![8], vec![8]),
            Op::Dh | Op::RsaPublic | Op::RsaPrivate | Op::ModExp => (vec![n; 3], vec![n]),
            Op::DhTwo | Op::ModInv => (vec![n; 2], vec![n]),
            Op::RsaPrivateCrt => (vec![n, half, half, half, half, half], vec![n]),
            Op::RsaKey => (vec![half, half, n], vec![n, n]),
            Op::RsaKeyCrt => (vec![half, half, n], vec![n, n, half, half, half]),
            Op::Fermat | Op::GcdTest | Op::Lucas => (vec![n], vec![]),
            Op::MillerRabin => (vec![n; 2], vec![]),
            Op::DsaGenerator { q } => (vec![n, order(q), n], vec![n]),
            Op::DsaPublic { q } => (vec![n, n, order(q)], vec![n]),
            Op::DsaSign { q } => {
                let q = order(q);
                (vec![q, q, n, q, n, q], vec![q, q])
            }
            Op::DsaSignR { q } => (vec![order(q), n, order(q), n], vec![order(q)]),
            Op::DsaSignS => (vec![n; 5], vec![n]),
            Op::DsaVerify { q } => {
                let q = order(q);
                (vec![q, q, q, n, q, n, n], vec![])
            }
            // The last one is the cofactor; of the largest curve it is one word, which no driver agrees on how to fill.
            Op::EcMultiply if self.bits == 521 => (vec![n; 6], vec![n; 2]),
            Op::EcMultiply => (vec![n; 7], vec![n; 2]),
            Op::EcVerifyPoint => (vec![n; 5], vec![]),
            // All numbers one after the other, as one input.
            Op::EcdsaSign => (vec![9 * n], vec![n; 2]),
            Op::EcdsaVerify => (vec![11 * n], vec![]),
            Op::EcdsaSignR => (vec![n; 7], vec![n]),
            Op::EcdsaSignS => (vec![n; 5], vec![n]),
            Op::NistMultiply | Op::EdwardsMultiply | Op::Sm2Decrypt | Op::Sm2Multiply => {
                (vec![n; 3], vec![n; 2])
            }
            Op::NistGenerator | Op::EdwardsGenerator | Op::Sm2Generator => (vec![n], vec![n; 2]),
            Op::NistSign | Op::Sm2Sign => (vec![n; 3], vec![n; 2]),
            Op::MontgomeryMultiply => (vec![n; 2], vec![n]),
            Op::MontgomeryGenerator => (vec![n], vec![n]),
            Op::Sm2Verify => (vec![n; 5], vec![]),
            Op::Sm2Encrypt => (vec![n; 3], vec![n; 4]),
            Op::Sm2VerifyPoint => (vec![n; 2], vec![]),
        }
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        let bits = self.bits;
        match self.op {
            Op::Init => "pke init".to_string(),
            Op::Dh => format!("dh-{bits}"),
            Op::DhTwo => format!("dh-{bits} base 2"),
            Op::RsaPublic => format!("rsa-{bits} public"),
            Op::RsaPrivate => format!("rsa-{bits} private"),
            Op::RsaPrivateCrt => format!("rsa-{bits} private crt"),
            Op::RsaKey => format!("rsa-{bits} key"),
            Op::RsaKeyCrt => format!("rsa-{bits} key crt"),
            Op::ModExp => format!("modexp-{bits}"),
            Op::ModInv => format!("modinv-{bits}"),
            Op::Fermat => format!("prime-{bits} fermat"),
            Op::GcdTest => format!("prime-{bits} gcd"),
            Op::MillerRabin => format!("prime-{bits} miller-rabin"),
            Op::Lucas => format!("prime-{bits} lucas"),
            Op::DsaGenerator { .. } => format!("dsa-{bits} generator"),
            Op::DsaPublic { .. } => format!("dsa-{bits} public"),
            Op::DsaSign { .. } => format!("dsa-{bits} sign"),
            Op::DsaSignR { .. } => format!("dsa-{bits} sign r"),
            Op::DsaSignS => format!("dsa q-{bits} sign s"),
            Op::DsaVerify { .. } => format!("dsa-{bits} verify"),
            Op::EcMultiply => format!("ec gfp-{bits} multiply"),
            Op::EcVerifyPoint => format!("ec gfp-{bits} verify point"),
            Op::EcdsaSign => format!("ecdsa gfp-{bits} sign"),
            Op::EcdsaSignR => format!("ecdsa gfp-{bits} sign r"),
            Op::EcdsaSignS => format!("ecdsa gfp-{bits} sign s"),
            Op::EcdsaVerify => format!("ecdsa gfp-{bits} verify"),
            Op::NistMultiply => format!("ec p-{bits} multiply"),
            Op::NistGenerator => format!("ec p-{bits} generator"),
            Op::NistSign => format!("ecdsa p-{bits} sign"),
            Op::MontgomeryMultiply => format!("x{} multiply", if bits == 255 { 25519 } else { bits }),
            Op::MontgomeryGenerator => format!("x{} generator", if bits == 255 { 25519 } else { bits }),
            Op::EdwardsMultiply => format!("ed{} multiply", if bits == 255 { 25519 } else { bits }),
            Op::EdwardsGenerator => format!("ed{} generator", if bits == 255 { 25519 } else { bits }),
            Op::Sm2Sign => "sm2 sign".to_string(),
            Op::Sm2Verify => "sm2 verify".to_string(),
            Op::Sm2Encrypt => "sm2 encrypt".to_string(),
            Op::Sm2Decrypt => "sm2 decrypt".to_string(),
            Op::Sm2Multiply => "sm2 multiply".to_string(),
            Op::Sm2Generator => "sm2 generator".to_string(),
            Op::Sm2VerifyPoint => "sm2 verify point".to_string(),
        }
    }

    /// How many times the lightest operation it costs.
    pub(super) fn weight(&self) -> u32 {
        let size = (self.len() as u32 / 128).max(1);
        match self.op {
            Op::Dh | Op::DhTwo | Op::RsaPrivate | Op::ModExp | Op::Fermat | Op::MillerRabin | Op::Lucas => {
                size * size
            }
            Op::RsaPrivateCrt | Op::RsaKey | Op::RsaKeyCrt => 1 + size * size / 3,
            Op::EcMultiply | Op::EcdsaSign | Op::EcdsaVerify | Op::EcdsaSignR => 4,
            _ => size,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_are_unique_and_names_tell_functions_apart() {
        let all: Vec<u32> =
            FUNCTIONS.iter().flat_map(|(_, numbers)| numbers.iter().map(|(id, _)| *id)).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        for id in all {
            let function = Function::find(id).unwrap();
            let (inputs, outputs) = function.shape();
            assert!(inputs.len() <= 8 && outputs.len() <= 8);
            assert!(inputs.iter().chain(&outputs).all(|len| len % 8 == 0), "{}", function.name());
        }
        assert_eq!(Function::find(0xffff_ffff), None);
    }

    #[test]
    fn sizes_are_those_of_the_specification() {
        let shape = |id| Function::find(id).unwrap().shape();
        assert_eq!(shape(0x5912_1dfa), (vec![256, 128, 128, 128, 128, 128], vec![256]));
        assert_eq!(shape(0x494a_329b), (vec![9 * 72], vec![72, 72]));
        assert_eq!(shape(0x0c06_3506), (vec![64, 64], vec![64]));
        assert_eq!(shape(0x1a13_35a6), (vec![48; 3], vec![48; 2]));
        assert_eq!(shape(0x323a_2570), (vec![24, 24, 24, 128, 24, 128, 128], vec![]));
    }
}
