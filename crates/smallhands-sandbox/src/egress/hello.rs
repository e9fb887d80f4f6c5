//! The server's name in the first message of TLS: just enough to compare it.

/// Longest first message that is looked at.
const MAX: usize = 32 << 10;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// It has not come whole yet.
    More,
    /// It asks for this server, in lower case; or for none.
    Name(Option<String>),
    /// It is no such message.
    Other(&'static str),
}

/// Takes off the front of a slice.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
    fn number(&mut self, bytes: usize) -> Option<usize> {
        let all = self.take(bytes)?;
        Some(all.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    }
    /// What stands after a length of so many bytes.
    fn sized(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let n = self.number(bytes)?;
        self.take(n)
    }
}

pub(super) fn read(bytes: &[u8]) -> Hello {
    let mut message = Vec::new();
    let mut records = Cursor(bytes);
    loop {
        if let Some(length) = message.get(1..4) {
            let length = Cursor(length).number(3).unwrap_or(0);
            if message[0] != 1 {
                return Hello::Other("it is not how TLS begins");
            }
            if length > MAX {
                return Hello::Other("its first message is too long");
            }
            if let Some(hello) = message.get(4..4 + length) {
                return match name(hello) {
                    Some(name) => Hello::Name(name),
                    None => Hello::Other("its first message cannot be read"),
                };
            }
        }
        let Some(kind) = records.take(1) else {
            return Hello::More;
        };
        if kind != [22] {
            return Hello::Other("it is not TLS");
        }
        match records.take(2) {
            None => return Hello::More,
            Some([3, _]) => {}
            Some(_) => return Hello::Other("it is not TLS"),
        }
        let Some(length) = records.number(2) else {
            return Hello::More;
        };
        if length == 0 || length > 1 << 14 {
            return Hello::Other("a record of it has a wrong length");
        }
        let whole = records.0.len() >= length;
        message.extend(&records.0[..length.min(records.0.len())]);
        if !whole && message.len() < 4 {
            return Hello::More;
        }
        records.0 = records.0.get(length..).unwrap_or_default();
    }
}

/// `None`: it is malformed.
fn name(hello: &[u8]) -> Option<Option<String>> {
    let mut c = Cursor(hello);
    c.take(2 + 32)?;
    c.sized(1)?;
    c.sized(2)?;
    c.sized(1)?;
    if c.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Cursor(c.sized(2)?);
    if !c.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let body = extensions.sized(2)?;
        if kind != 0 {
            continue;
        }
        let mut outer = Cursor(body);
        let mut list = Cursor(outer.sized(2)?);
        let kind = list.number(1)?;
        let name = list.sized(2)?;
        // One name of one kind, once: two readers must not find different ones.
        let lone = outer.0.is_empty() && list.0.is_empty() && kind == 0 && found.is_none();
        let text = std::str::from_utf8(name).ok().filter(|_| lone)?;
        found = Some(text.to_ascii_lowercase());
    }
    Some(found)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn sized(bytes: usize, body: &[u8]) -> Vec<u8> {
        let n = (body.len() as u32).to_be_bytes();
        [&n[4 - bytes..], body].concat()
    }

    pub(crate) fn server_name(name: &str) -> Vec<u8> {
        let entry = [vec![0], sized(2, name.as_bytes())].concat();
        [vec![0, 0], sized(2, &sized(2, &entry))].concat()
    }

    /// A first message with these extensions, in records of at most so many bytes.
    pub(crate) fn client_hello(extensions: &[Vec<u8>], record: usize) -> Vec<u8> {
        let other = [vec![0, 23], sized(2, b"")].concat();
        let all = [vec![other], extensions.to_vec()].concat().concat();
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend(sized(1, &[9; 32]));
        body.extend(sized(2, &[0x13, 1, 0x13, 2]));
        body.extend(sized(1, &[0]));
        body.extend(sized(2, &all));
        let message = [vec![1], sized(3, &body)].concat();
        let records = message.chunks(record);
        records
            .flat_map(|r| [vec![22, 3, 1], sized(2, r)].concat())
            .collect()
    }

    #[test]
    fn names_are_found_however_they_are_cut() {
        for record in [1, 3, 5, 50, 1 << 14] {
            let all = client_hello(&[server_name("A.Example.com")], record);
            for cut in 0..all.len() {
                assert_eq!(read(&all[..cut]), Hello::More, "{record} {cut}");
            }
            let name = Hello::Name(Some("a.example.com".into()));
            assert_eq!(read(&all), name);
            assert_eq!(read(&[&all[..], b"more"].concat()), name);
        }
        assert_eq!(read(&client_hello(&[], 99)), Hello::Name(None));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let other = |b: &[u8]| matches!(read(b), Hello::Other(_));
        let (a, b) = (server_name("a.com"), server_name("b.com"));
        assert!(other(&client_hello(&[a.clone(), b], 999)));
        let two = [sized(
            2,
            &[vec![0], sized(2, b"a.com"), vec![0], sized(2, b"b.com")].concat(),
        )];
        assert!(other(&client_hello(
            &[[vec![0, 0], sized(2, &two[0])].concat()],
            999
        )));
        for text in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"SSH-2.0-x\r\n",
            &[22, 2, 0],
            &[22, 3, 1, 0, 0],
        ] {
            assert!(other(text));
        }
        assert!(other(&[22, 3, 1, 255, 255]));
        assert!(other(&[22, 3, 1, 0, 4, 1, 255, 255, 255]));
        assert!(other(&[22, 3, 1, 0, 4, 2, 0, 0, 0]));
    }
}
