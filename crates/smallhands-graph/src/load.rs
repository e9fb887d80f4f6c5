//! Graphs from text: every error says where.

use crate::{
    GraphError,
    check::{Path, Seg, check_at, similar},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, Visitor, value::Error as Unread},
    forward_to_deserialize_any,
};
use serde_json::Value;
use smallhands_core::{Binding, Budget, MapOver, Repeat, Resources, Retry, SubGraph, TaskSpec};
use std::sync::Arc;

type Tasks = Vec<Arc<TaskSpec>>;

#[derive(Deserialize)]
#[serde(expecting = "a list of tasks, or an object with `tasks`")]
struct File {
    tasks: Tasks,
}

pub(crate) fn json(text: &str) -> Result<Tasks, GraphError> {
    let parse = Parse {
        value: |t| serde_json::from_str(t).map_err(Bad::json),
        file: |t| serde_json::from_str(t).map_err(Bad::json),
        list: |t| serde_json::from_str(t).map_err(Bad::json),
        place: json::place,
        path: json::path,
    };
    parse.run(text)
}

#[cfg(feature = "yaml")]
pub(crate) fn yaml(text: &str) -> Result<Tasks, GraphError> {
    let parse = Parse {
        value: |t| serde_saphyr::from_str(t).map_err(Bad::yaml),
        file: |t| serde_saphyr::from_str(t).map_err(Bad::yaml),
        list: |t| serde_saphyr::from_str(t).map_err(Bad::yaml),
        place: yaml::place,
        path: yaml::path,
    };
    parse.run(text)
}

/// A line and a column, from 1.
type Place = (usize, usize);

/// What a library says of a text that it cannot read.
struct Bad {
    said: String,
    /// The same without the place.
    what: String,
    at: Place,
}

impl Bad {
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    fn json(e: serde_json::Error) -> Self {
        let (said, at) = (e.to_string(), (e.line(), e.column()));
        let place = format!(" at line {} column {}", at.0, at.1);
        let what = said.strip_suffix(&place).unwrap_or(&said).into();
        Self { said, what, at }
    }

    #[cfg(feature = "yaml")]
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    fn yaml(e: serde_saphyr::Error) -> Self {
        let at = e.location().and_then(|l| yaml::of(&l)).unwrap_or_default();
        let what = e.without_snippet().to_string();
        let place = format!(" at line {}, column {}", at.0, at.1);
        Self {
            said: e.to_string(),
            what: what.strip_suffix(&place).unwrap_or(&what).into(),
            at,
        }
    }

    fn whole(self) -> GraphError {
        GraphError::Parse(self.said)
    }
}

/// One text format.
struct Parse {
    value: fn(&str) -> Result<Value, Bad>,
    file: fn(&str) -> Result<File, Bad>,
    list: fn(&str) -> Result<Tasks, Bad>,
    /// Where the value at a path begins.
    place: fn(&str, &[Seg]) -> Option<Place>,
    /// The path to the innermost value around a place.
    path: fn(&str, Place) -> Option<Path>,
}

impl Parse {
    fn run(&self, text: &str) -> Result<Tasks, GraphError> {
        let v = (self.value)(text).map_err(Bad::whole)?;
        // Unknown fields first: one that is misspelt is missing too, and that is the lesser clue.
        let (prefix, unknown) = match &v {
            Value::Array(_) => (Path::default(), unknown_in_list(&v, &TASK)),
            _ => (Path::default().key("tasks"), unknown_field(&v, &FILE)),
        };
        if let Some((at, e)) = unknown {
            return Err(self.at(text, at, e));
        }
        let tasks = match v {
            Value::Array(_) => (self.list)(text),
            _ => (self.file)(text).map(|f| f.tasks),
        };
        let tasks = tasks.map_err(|b| self.unread(text, b))?;
        if tasks.is_empty() {
            return Err(GraphError::Empty);
        }
        match check_at(&tasks, &|_| None) {
            Ok(()) => Ok(tasks),
            Err(l) => Err(self.at(text, prefix.join(l.at), l.error)),
        }
    }

    /// A value of another type than the field: the library knows the place and not the path.
    fn unread(&self, text: &str, bad: Bad) -> GraphError {
        match (self.path)(text, bad.at).filter(|p| !p.0.is_empty()) {
            Some(path) => self.at(text, path, GraphError::Parse(bad.what)),
            None => bad.whole(),
        }
    }

    fn at(&self, text: &str, at: Path, e: GraphError) -> GraphError {
        // What is absent is looked for where it ought to be.
        let found = (1..=at.0.len()).rev();
        let place = found.filter_map(|n| (self.place)(text, &at.0[..n])).next();
        let (line, column) = place.unwrap_or((1, 1));
        GraphError::At {
            line,
            column,
            path: at.to_string(),
            error: Box::new(e),
        }
    }
}

/// The fields of an object of the format, and which of them hold further objects.
struct Fields {
    of: &'static str,
    names: fn() -> &'static [&'static str],
    inner: &'static [(&'static str, Inner)],
}

enum Inner {
    One(&'static Fields),
    Each(&'static Fields),
}

static FILE: Fields = Fields {
    of: "a graph",
    names: names::<File>,
    inner: &[("tasks", Inner::Each(&TASK))],
};
static TASK: Fields = Fields {
    of: "a task",
    names: names::<TaskSpec>,
    inner: &[
        ("bind", Inner::Each(&BINDING)),
        ("map", Inner::One(&MAP)),
        ("graph", Inner::One(&GRAPH)),
        ("repeat", Inner::One(&REPEAT)),
        ("retry", Inner::One(&RETRY)),
        ("budget", Inner::One(&BUDGET)),
        ("resources", Inner::One(&RESOURCES)),
    ],
};
static GRAPH: Fields = Fields {
    of: "a sub-graph",
    names: names::<SubGraph>,
    inner: &[("tasks", Inner::Each(&TASK))],
};
static BINDING: Fields = leaf("a binding", names::<Binding>);
static MAP: Fields = leaf("a map", names::<MapOver>);
static REPEAT: Fields = leaf("a loop", names::<Repeat>);
static RETRY: Fields = leaf("a retry policy", names::<Retry>);
static BUDGET: Fields = leaf("a budget", names::<Budget>);
static RESOURCES: Fields = leaf("a claim of resources", names::<Resources>);

const fn leaf(of: &'static str, names: fn() -> &'static [&'static str]) -> Fields {
    Fields {
        of,
        names,
        inner: &[],
    }
}

/// The first field that the format does not have. Readers of journals ignore such fields, which
/// newer programs may have written; people who write a file must hear of them.
fn unknown_field(v: &Value, f: &Fields) -> Option<(Path, GraphError)> {
    let map = v.as_object()?;
    let names = (f.names)();
    for (k, v) in map {
        if !names.contains(&k.as_str()) {
            let e = GraphError::UnknownField {
                of: f.of,
                field: k.clone(),
                similar: similar(k, names.iter().copied()).map(str::to_owned),
            };
            return Some((Path::default().key(k), e));
        }
        let inner = f.inner.iter().find(|(n, _)| n == k).map(|(_, i)| i);
        let found = match inner {
            Some(Inner::One(f)) => unknown_field(v, f),
            Some(Inner::Each(f)) => unknown_in_list(v, f),
            None => None,
        };
        if let Some((at, e)) = found {
            return Some((Path::default().key(k).join(at), e));
        }
    }
    None
}

fn unknown_in_list(v: &Value, f: &Fields) -> Option<(Path, GraphError)> {
    let mut found = v.as_array()?.iter().enumerate();
    found.find_map(|(i, v)| {
        let (at, e) = unknown_field(v, f)?;
        Some((Path::default().index(i).join(at), e))
    })
}

/// The fields that a struct reads, told by its own `Deserialize`, so that no list can fall behind.
fn names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It always fails: there is nothing to read.
    drop(T::deserialize(Ask(&mut names)));
    names
}

struct Ask<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = Unread;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Unread> {
        *self.0 = fields;
        Err(Unread::custom("only asked"))
    }
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unread> {
        Err(Unread::custom("only asked"))
    }
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
        ignored_any
    }
}

mod json {
    use super::Place;
    use crate::check::{Path, Seg};
    use serde_json::value::RawValue;
    use std::collections::BTreeMap;

    fn inner(v: &RawValue) -> Vec<(Seg, &RawValue)> {
        if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(v.get()) {
            let all = list.into_iter().enumerate();
            return all.map(|(i, v)| (Seg::Index(i), v)).collect();
        }
        let fields = serde_json::from_str::<BTreeMap<String, &RawValue>>(v.get());
        let all = fields.unwrap_or_default().into_iter();
        all.map(|(k, v)| (Seg::Key(k), v)).collect()
    }

    /// Borrowed from the text, so that the address tells the place.
    fn offset(text: &str, v: &RawValue) -> Option<usize> {
        (v.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)
    }

    pub(super) fn place(text: &str, path: &[Seg]) -> Option<Place> {
        let mut at: &RawValue = serde_json::from_str(text).ok()?;
        for s in path {
            at = inner(at).into_iter().find(|(seg, _)| seg == s)?.1;
        }
        let before = text.get(..offset(text, at)?)?;
        let line = before.rsplit('\n').next()?;
        let lines = before.bytes().filter(|b| *b == b'\n').count();
        Some((lines + 1, line.chars().count() + 1))
    }

    pub(super) fn path(text: &str, (line, column): Place) -> Option<Path> {
        let lines = text.split_inclusive('\n').take(line.checked_sub(1)?);
        // The library counts bytes.
        let wanted = lines.map(str::len).sum::<usize>() + column.checked_sub(1)?;
        let around = |(_, v): &(Seg, &RawValue)| {
            let from = offset(text, v);
            from.is_some_and(|from| (from..from + v.get().len()).contains(&wanted))
        };
        let mut at: &RawValue = serde_json::from_str(text).ok()?;
        let mut path = Path::default();
        while let Some((seg, v)) = inner(at).into_iter().find(around) {
            path.0.push(seg);
            at = v;
        }
        Some(path)
    }
}

#[cfg(feature = "yaml")]
mod yaml {
    use super::Place;
    use crate::check::{Path, Seg};
    use serde::{
        Deserialize, Deserializer,
        de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
    };
    use serde_saphyr::{Location, Spanned};
    use std::fmt;

    type Name = Spanned<String>;

    /// Only what leads to a place.
    enum Tree {
        Leaf,
        List(Vec<Spanned<Tree>>),
        Map(Vec<(Name, Tree)>),
    }

    pub(super) fn of(l: &Location) -> Option<Place> {
        let place = (l.line().try_into().ok()?, l.column().try_into().ok()?);
        (place.0 > 0).then_some(place)
    }

    /// Of a field, the place of its name.
    pub(super) fn place(text: &str, path: &[Seg]) -> Option<Place> {
        let root: Tree = serde_saphyr::from_str(text).ok()?;
        let (mut at, mut place) = (&root, None);
        for s in path {
            (at, place) = match (s, at) {
                (Seg::Index(i), Tree::List(l)) => {
                    let t = l.get(*i)?;
                    (&t.value, of(&t.referenced))
                }
                (Seg::Key(k), Tree::Map(m)) => {
                    let (name, t) = m.iter().find(|(n, _)| n.value == *k)?;
                    (t, of(&name.referenced))
                }
                _ => return None,
            };
        }
        place
    }

    pub(super) fn path(text: &str, wanted: Place) -> Option<Path> {
        let root: Tree = serde_saphyr::from_str(text).ok()?;
        let (mut at, mut path) = (&root, Path::default());
        loop {
            // The last that begins before it; an object begins where its first name does.
            let next = match at {
                Tree::Leaf => None,
                Tree::List(l) => {
                    let before = |t: &&Spanned<Tree>| of(&t.referenced) <= Some(wanted);
                    let i = l.iter().take_while(before).count().checked_sub(1);
                    i.map(|i| (Seg::Index(i), &l[i].value))
                }
                Tree::Map(m) => {
                    let before = |(n, _): &&(Name, Tree)| of(&n.referenced) < Some(wanted);
                    let last = m.iter().take_while(before).last();
                    last.map(|(n, t)| (Seg::Key(n.value.clone()), t))
                }
            };
            let Some((seg, t)) = next else {
                return Some(path);
            };
            path.0.push(seg);
            at = t;
        }
    }

    impl<'de> Deserialize<'de> for Tree {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            d.deserialize_any(Grow)
        }
    }

    struct Grow;

    macro_rules! leaves { ($($visit:ident: $t:ty,)*) => { $(
        fn $visit<E>(self, _: $t) -> Result<Tree, E> { Ok(Tree::Leaf) }
    )* } }

    impl<'de> Visitor<'de> for Grow {
        type Value = Tree;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any YAML")
        }
        leaves! {
            visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64,
            visit_u128: u128, visit_f64: f64, visit_str: &str, visit_bytes: &[u8],
        }
        fn visit_unit<E>(self) -> Result<Tree, E> {
            Ok(Tree::Leaf)
        }
        fn visit_none<E>(self) -> Result<Tree, E> {
            Ok(Tree::Leaf)
        }
        fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Tree, D::Error> {
            Tree::deserialize(d)
        }
        fn visit_enum<A: serde::de::EnumAccess<'de>>(self, a: A) -> Result<Tree, A::Error> {
            a.variant::<IgnoredAny>().map(|_| Tree::Leaf)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut a: A) -> Result<Tree, A::Error> {
            let mut list = Vec::new();
            while let Some(t) = a.next_element()? {
                list.push(t);
            }
            Ok(Tree::List(list))
        }
        fn visit_map<A: MapAccess<'de>>(self, mut a: A) -> Result<Tree, A::Error> {
            let mut map = Vec::new();
            while let Some(e) = a.next_entry()? {
                map.push(e);
            }
            Ok(Tree::Map(map))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_struct_tells_its_fields() {
        for f in [
            &FILE, &TASK, &GRAPH, &BINDING, &MAP, &REPEAT, &RETRY, &BUDGET, &RESOURCES,
        ] {
            let names = (f.names)();
            assert!(!names.is_empty(), "{}", f.of);
            for (n, _) in f.inner {
                assert!(names.contains(n), "{}: {n}", f.of);
            }
        }
    }
}
