/// The hash that [`ConsistentHash`](super::ConsistentHash) places replicas and requests with: 64-bit FNV-1a
/// (Fowler, Noll, Vo), its bits mixed by the finaliser of MurmurHash3 (Appleby, 2011) because short texts that
/// differ in their last byte would stand close together. The same on every machine and in every version, so that
/// gateways beside each other agree.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

/// The finaliser of MurmurHash3, 64 bits.
pub(super) const fn mix(mut h: u64) -> u64 {
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV's own test values, through the finaliser's inverse being a bijection: equal only if FNV is right.
    #[test]
    fn agrees_with_the_published_values() {
        assert_eq!(hash(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash(b"a"), mix(0xaf63_dc4c_8601_ec8c));
        assert_eq!(hash(b"foobar"), mix(0x8594_4171_f739_67e8));
    }
}
