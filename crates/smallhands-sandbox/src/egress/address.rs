//! Which addresses belong to the public internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is one that anyone may have: not this machine, its network or its cloud.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four_is_public(four),
        IpAddr::V6(six) => six_is_public(six),
    }
}

fn four_is_public(a: Ipv4Addr) -> bool {
    let [w, x, y, _] = a.octets();
    !(w == 0 // This network.
        || w >= 224 // Multicast, reserved, broadcast.
        || a.is_loopback()
        || a.is_private()
        || a.is_link_local() // 169.254.169.254 too.
        || a.is_documentation()
        || (w == 100 && x & 0xc0 == 64) // Shared by providers; metadata of one of them.
        || (w == 192 && x == 0 && y == 0) // Protocols.
        || (w == 192 && x == 88 && y == 99) // Relays of 6to4.
        || (w == 198 && x & 0xfe == 18)) // Benchmarks.
}

fn six_is_public(a: Ipv6Addr) -> bool {
    // Networks with no IPv4 of their own reach it through this prefix.
    if let Some(four) = nat64(a) {
        return four_is_public(four);
    }
    let s = a.segments();
    let global = s[0] & 0xe000 == 0x2000;
    global
        && embedded(a).is_none()
        && !(s[0] == 0x2001 && s[1] < 0x200) // Protocols, Teredo.
        && !(s[0] == 0x2001 && s[1] == 0xdb8) // Documentation.
        && !(s[0] == 0x3fff && s[1] < 0x1000) // Documentation.
}

fn nat64(a: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = a.segments();
    (s[..6] == [0x64, 0xff9b, 0, 0, 0, 0]).then(|| tail(a))
}

fn tail(a: Ipv6Addr) -> Ipv4Addr {
    let [.., w, x, y, z] = a.octets();
    Ipv4Addr::new(w, x, y, z)
}

/// The IPv4 address that an IPv6 address stands for, if it does: mapped, compatible, 6to4 or
/// translated.
pub(super) fn embedded(a: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = a.segments();
    if s[..5] == [0; 5] && (s[5] == 0xffff || (s[5] == 0 && (s[6] != 0 || s[7] > 1))) {
        return Some(tail(a));
    }
    if s[..4] == [0, 0, 0, 0] && s[4] == 0xffff && s[5] == 0 {
        return Some(tail(a));
    }
    if s[0] == 0x2002 {
        let [_, _, w, x, y, z, ..] = a.octets();
        return Some(Ipv4Addr::new(w, x, y, z));
    }
    nat64(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet() {
        let public = |t: &str| is_public(t.parse().unwrap());
        for a in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "64:ff9b::808:808",
        ] {
            assert!(public(a), "{a}");
        }
        for a in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "100::1",
            "4000::1",
        ] {
            assert!(!public(a), "{a}");
        }
    }
}
