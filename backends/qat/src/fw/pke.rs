//! Functions on large numbers: which there are, and the request for one.
//!
//! Numbers are big-endian and exactly as long as the function says, with zeroes in front. A function is named by a word that the
//! firmware's authors chose; nothing can be read from it.
//!
//! ```text
//! word  0      service 3, valid
//!       5      function
//!       6, 7   cookie
//!       8, 9   address of the table with the addresses of what goes in
//!       10, 11 address of the table with the addresses of what comes out
//!       12     how many come out (bits 0-7) and go in (8-15)
//! ```

/// A function for numbers of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) id: u32,
    /// Octets of each number.
    pub(crate) size: usize,
}

const fn function(id: u32, bits: usize) -> Function {
    Function { id, size: bits / 8 }
}

/// Everything of this list is there in generation 2 up to 4096 bits; what is larger came with generation 4.
const BOTH: usize = 512;

fn of_size(list: &'static [Function], size: usize, fourth: bool) -> Option<Function> {
    list.iter().copied().find(|function| function.size == size && (fourth || size <= BOTH))
}

/// `g e m` to `g^e mod m`, for the sizes of groups.
static POWERS: [Function; 4] = [
    function(0x4d0c_1a60, 2048),
    function(0x510c_1a77, 3072),
    function(0x690c_1a8e, 4096),
    function(0xcd0d_3636, 8192),
];
/// `e m` to `2^e mod m`.
static POWERS_OF_TWO: [Function; 4] = [
    function(0x3e0b_1a55, 2048),
    function(0x3a0b_1a6c, 3072),
    function(0x4a0b_1a83, 4096),
    function(0x8d0b_3626, 8192),
];
/// `g e m` to `g^e mod m`, for numbers of up to so many bits.
static ANY_POWERS: [Function; 9] = [
    ANY_POWER_512,
    function(0x2d0c_233e, 1024),
    function(0x410c_2355, 1536),
    function(0x5e12_236c, 2048),
    function(0x6016_2388, 2560),
    function(0x650c_23a9, 3072),
    function(0x8016_23c0, 3584),
    function(0x850c_23e1, 4096),
    ANY_POWER_8192,
];
const ANY_POWER_512: Function = function(0x150c_2327, 512);
const ANY_POWER_8192: Function = function(0xc50c_3646, 8192);
/// `m e n` to `c`: RSA with the public key.
static RSA_PUBLIC: [Function; 5] = [
    function(0x3511_1bf7, 1024),
    function(0x6e11_1dba, 2048),
    function(0x7d11_1ea3, 3072),
    function(0xa510_1f7e, 4096),
    function(0xc313_35c6, 8192),
];
/// `c d n` to `m`: RSA with the private key.
static RSA_PRIVATE: [Function; 4] = [
    function(0x6e11_1dda, 2048),
    function(0x7d11_1ebe, 3072),
    function(0xa510_1f98, 4096),
    function(0xc313_35e6, 8192),
];
/// `c p q dP dQ qInv` to `m`: the same by the Chinese remainder theorem; all but `c` and `m` are half as long.
static RSA_PRIVATE_CRT: [Function; 4] = [
    function(0x5912_1dfa, 2048),
    function(0x8112_1ed9, 3072),
    function(0xb111_1fb2, 4096),
    function(0xc913_3606, 8192),
];

/// `g^e mod m` in a group of so many octets; there is none of its own for 6144 bits.
pub(crate) fn power(size: usize, fourth: bool) -> Option<Function> {
    of_size(&POWERS, size, fourth).or((fourth && size == 768).then_some(ANY_POWER_8192))
}

/// `2^e mod m` likewise, where there is a function for it.
pub(crate) fn power_of_two(size: usize, fourth: bool) -> Option<Function> {
    of_size(&POWERS_OF_TWO, size, fourth)
}

/// `g^e mod m` for numbers of up to so many octets.
pub(crate) fn any_power(len: usize, fourth: bool) -> Option<Function> {
    let fits = |function: &&Function| function.size >= len && (fourth || function.size <= BOTH);
    ANY_POWERS.iter().find(fits).copied()
}

/// `g^e mod m` for a first check that all is well.
pub(crate) fn small_power() -> Function {
    ANY_POWER_512
}

pub(crate) fn rsa_public(size: usize, fourth: bool) -> Option<Function> {
    of_size(&RSA_PUBLIC, size, fourth)
}

pub(crate) fn rsa_private(size: usize, fourth: bool) -> Option<Function> {
    of_size(&RSA_PRIVATE, size, fourth)
}

pub(crate) fn rsa_private_crt(size: usize, fourth: bool) -> Option<Function> {
    of_size(&RSA_PRIVATE_CRT, size, fourth)
}

/// Says whether the card signs with a modulus of so many octets.
pub(crate) fn signs(fourth: bool) -> impl Fn(usize) -> bool {
    move |size| rsa_private(size, fourth).is_some() && rsa_private_crt(size, fourth).is_some()
}

/// Functions on one curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CurveFunctions {
    /// `k x y a b p h` to `x y`.
    pub(crate) multiply: Function,
    /// One buffer `d e k b a p n yG xG` to `r s`.
    pub(crate) sign: Function,
    /// One buffer `p b a yQ xQ yG xG n r s e` to nothing.
    pub(crate) verify: Function,
    /// Of generation 4, with the curve known: `x y k` to `x y`; `k` to `x y`; `k e d` to `r s`.
    pub(crate) fixed: Option<Fixed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) multiply: Function,
    pub(crate) generate: Function,
    pub(crate) sign: Function,
}

pub(crate) static P256: CurveFunctions = CurveFunctions {
    multiply: function(0x4320_33a6, 256),
    sign: function(0x6a3c_2fa6, 256),
    verify: function(0x325b_3023, 256),
    fixed: Some(Fixed {
        multiply: function(0x0a08_3546, 256),
        generate: function(0x1207_3556, 256),
        sign: function(0x1813_3566, 256),
    }),
};
/// The general functions have numbers of 512 bits.
pub(crate) static P384: CurveFunctions = CurveFunctions {
    multiply: function(0x4125_3419, 512),
    sign: function(0x5a2b_3127, 512),
    verify: function(0x3553_318a, 512),
    fixed: Some(Fixed {
        multiply: function(0x0b08_3586, 384),
        generate: function(0x0b07_3596, 384),
        sign: function(0x1a13_35a6, 384),
    }),
};
/// Numbers of 521 bits take 72 octets.
pub(crate) static P521: CurveFunctions = CurveFunctions {
    multiply: function(0x5511_346e, 576),
    sign: function(0x494a_329b, 576),
    verify: function(0x554c_331f, 576),
    fixed: None,
};

/// Montgomery curves, of generation 4: `x k` to `x`, and `k` to `x`. The device clamps `k` itself.
pub(crate) struct Montgomery {
    pub(crate) multiply: Function,
    pub(crate) generate: Function,
}

pub(crate) static X25519: Montgomery =
    Montgomery { multiply: function(0x0a06_34c6, 256), generate: function(0x0a06_34d6, 256) };
/// Numbers take 64 octets, of which 56 count.
pub(crate) static X448: Montgomery =
    Montgomery { multiply: function(0x0c06_3506, 512), generate: function(0x0c06_3516, 512) };

/// Octets of a request, and of a table: eight addresses.
pub(crate) const LEN: usize = 64;
pub(crate) const MOST_NUMBERS: usize = 8;

/// A request.
pub(crate) fn request(id: u32, cookie: u64, tables: [u64; 2], inputs: u8, outputs: u8) -> [u8; LEN] {
    let mut octets = [0; LEN];
    let mut put = |word: usize, value: u64, len: usize| {
        octets[4 * word..4 * word + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    put(0, 0x8003_0000, 4);
    put(5, id.into(), 4);
    put(6, cookie, 8);
    put(8, tables[0], 8);
    put(10, tables[1], 8);
    put(12, u64::from(outputs) | u64::from(inputs) << 8, 2);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_words_where_the_device_looks() {
        let octets = request(0x1812_3456, 0xa1b2_c3d4_e5f6_0718, [0x1_0000_0040, 0x2_0000_0080], 3, 2);
        let words: Vec<u32> =
            octets.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        assert_eq!(
            words,
            [
                0x8003_0000,
                0,
                0,
                0,
                0,
                0x1812_3456,
                0xe5f6_0718,
                0xa1b2_c3d4,
                0x40,
                1,
                0x80,
                2,
                0x0302,
                0,
                0,
                0
            ]
        );
    }

    #[test]
    fn sizes_beyond_4096_bits_are_generation_4_s() {
        for of in [power, power_of_two, rsa_public, rsa_private, rsa_private_crt] {
            assert!(of(256, false).is_some() && of(512, false).is_some());
            assert!(of(1024, false).is_none() && of(1024, true).is_some());
            assert!(of(300, true).is_none());
        }
        assert_eq!(power(768, true).map(|function| function.size), Some(1024));
        assert_eq!(any_power(300, false).map(|function| function.size), Some(320));
        assert!(
            any_power(513, false).is_none()
                && any_power(513, true).is_some()
                && any_power(1025, true).is_none()
        );
        assert!(power(768, false).is_none() && power_of_two(768, true).is_none());
    }
}
