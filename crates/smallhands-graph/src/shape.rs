//! What a JSON schema allows, as far as it can be told without a value. Whatever is not understood
//! allows everything, so that no edge is refused that could work.

use serde_json::{Map, Value};
use std::{cell::Cell, collections::BTreeSet, ptr};

/// A schema object, and the document that its references are looked up in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sub<'a> {
    root: &'a Value,
    map: &'a Map<String, Value>,
}

/// A set of values.
#[derive(Clone, Debug)]
pub(crate) enum Shape<'a> {
    Any,
    Never,
    /// A schema as it is written.
    Schema(Sub<'a>),
    /// The same without references and combinations.
    Own(Sub<'a>),
    /// These values.
    Values(Vec<&'a Value>),
    All(Vec<Shape<'a>>),
    OneOf(Vec<Shape<'a>>),
    /// A list of such elements.
    List(Box<Shape<'a>>),
    /// An object with these fields and no others.
    Record(Vec<(String, Shape<'a>)>),
}

const NULL: u8 = 1;
const BOOL: u8 = 2;
const INTEGER: u8 = 4;
const FRACTION: u8 = 8;
const STRING: u8 = 16;
const ARRAY: u8 = 32;
const OBJECT: u8 = 64;
const ALL: u8 = 127;

/// The types that values of a shape may have, and the values themselves if they are listed.
#[derive(Clone, Debug)]
pub(crate) struct Kind<'a> {
    types: u8,
    values: Option<Vec<&'a Value>>,
}

/// Why nothing fits two shapes.
#[derive(Debug)]
pub(crate) struct Mismatch {
    /// JSON pointer below the two.
    pub(crate) at: String,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// Looks at shapes with bounded effort: schemas may refer to themselves.
#[derive(Debug)]
pub(crate) struct Look {
    fuel: Cell<u32>,
}

pub(crate) fn schema(root: &Value) -> Shape<'_> {
    of(root, root)
}

fn of<'a>(root: &'a Value, v: &'a Value) -> Shape<'a> {
    match v {
        Value::Bool(false) => Shape::Never,
        // References below another `$id` have another base.
        Value::Object(m) if ptr::eq(root, v) || !m.contains_key("$id") => {
            Shape::Schema(Sub { root, map: m })
        }
        _ => Shape::Any,
    }
}

fn one_of(mut v: Vec<Shape<'_>>) -> Shape<'_> {
    v.retain(|s| !matches!(s, Shape::Never));
    if v.iter().any(|s| matches!(s, Shape::Any)) {
        return Shape::Any;
    }
    match v.len() {
        0 => Shape::Never,
        1 => v.remove(0),
        _ => Shape::OneOf(v),
    }
}

fn all(mut v: Vec<Shape<'_>>) -> Shape<'_> {
    if v.iter().any(|s| matches!(s, Shape::Never)) {
        return Shape::Never;
    }
    v.retain(|s| !matches!(s, Shape::Any));
    match v.len() {
        0 => Shape::Any,
        1 => v.remove(0),
        _ => Shape::All(v),
    }
}

impl<'a> Sub<'a> {
    fn list(self, key: &str) -> Option<&'a Vec<Value>> {
        self.map.get(key)?.as_array()
    }

    /// Own keywords, references and combinations, all of which hold.
    fn expand(self) -> Shape<'a> {
        let mut parts = vec![Shape::Own(self)];
        if let Some(r) = self.map.get("$ref").and_then(Value::as_str) {
            let target = r.strip_prefix('#').and_then(|p| self.root.pointer(p));
            let target = target.map_or(Shape::Any, |t| of(self.root, t));
            // Up to draft 7 what stands beside a reference is ignored.
            let dialect = self.root.get("$schema").and_then(Value::as_str);
            if dialect.is_some_and(|d| d.contains("draft-0")) {
                return target;
            }
            parts.push(target);
        }
        let each = |v: &'a Vec<Value>| v.iter().map(|s| of(self.root, s)).collect::<Vec<_>>();
        parts.extend(self.list("allOf").into_iter().flat_map(each));
        for k in ["anyOf", "oneOf"] {
            parts.extend(self.list(k).map(|v| one_of(each(v))));
        }
        all(parts)
    }

    fn kind(self) -> Kind<'a> {
        let types = match self.map.get("type") {
            Some(Value::String(t)) => type_bits(t),
            Some(Value::Array(ts)) => ts
                .iter()
                .filter_map(Value::as_str)
                .fold(0, |b, t| b | type_bits(t)),
            _ => ALL,
        };
        let listed = match (self.map.get("const"), self.list("enum")) {
            (Some(c), _) => Some(vec![c]),
            (None, Some(e)) => Some(e.iter().collect()),
            _ => None,
        };
        Kind {
            types,
            values: None,
        }
        .and(Kind::listed(listed))
    }

    /// What an object may hold under a key.
    fn property(self, name: &str) -> Shape<'a> {
        let known = self.map.get("properties").and_then(|p| p.get(name));
        if let Some(s) = known {
            return of(self.root, s);
        }
        let patterns = self.map.get("patternProperties").and_then(Value::as_object);
        if patterns.is_some_and(|p| !p.is_empty()) {
            return Shape::Any;
        }
        if let Some(s) = self.map.get("additionalProperties") {
            return of(self.root, s);
        }
        let combined = [
            "$ref",
            "$dynamicRef",
            "allOf",
            "anyOf",
            "oneOf",
            "if",
            "dependentSchemas",
        ];
        match self.map.get("unevaluatedProperties") {
            Some(s) if !combined.iter().any(|k| self.map.contains_key(*k)) => of(self.root, s),
            _ => Shape::Any,
        }
    }

    fn element(self, i: usize) -> Shape<'a> {
        let limit = self.map.get("maxItems").and_then(Value::as_u64);
        if limit.is_some_and(|n| i as u64 >= n) {
            return Shape::Never;
        }
        // Up to draft 2019-09 `items` may be the list that is `prefixItems` now.
        let (first, rest) = match self.map.get("items") {
            Some(Value::Array(first)) => (Some(first), self.map.get("additionalItems")),
            rest => (self.list("prefixItems"), rest),
        };
        let s = first.and_then(|f| f.get(i)).or(rest);
        s.map_or(Shape::Any, |s| of(self.root, s))
    }

    /// What every element may be.
    fn elements(self) -> Shape<'a> {
        let tuple = self.map.contains_key("prefixItems");
        match self.map.get("items") {
            Some(s) if !tuple && !s.is_array() => of(self.root, s),
            _ => Shape::Any,
        }
    }
}

fn type_bits(t: &str) -> u8 {
    match t {
        "null" => NULL,
        "boolean" => BOOL,
        "integer" => INTEGER,
        "number" => INTEGER | FRACTION,
        "string" => STRING,
        "array" => ARRAY,
        "object" => OBJECT,
        _ => ALL,
    }
}

fn bits_of(v: &Value) -> u8 {
    match v {
        Value::Null => NULL,
        Value::Bool(_) => BOOL,
        Value::Number(n) if n.is_f64() && n.as_f64().is_some_and(|f| f.fract() != 0.0) => FRACTION,
        Value::Number(_) => INTEGER,
        Value::String(_) => STRING,
        Value::Array(_) => ARRAY,
        Value::Object(_) => OBJECT,
    }
}

/// As JSON schema compares: 1 and 1.0 are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        // Numbers may hide inside; that these differ is not certain.
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => true,
        _ => a == b,
    }
}

impl<'a> Kind<'a> {
    fn any() -> Self {
        Self {
            types: ALL,
            values: None,
        }
    }
    fn typed(types: u8) -> Self {
        Self {
            types,
            values: None,
        }
    }
    fn listed(values: Option<Vec<&'a Value>>) -> Self {
        let types = match &values {
            None => ALL,
            Some(v) => v.iter().fold(0, |b, v| b | bits_of(v)),
        };
        Self { types, values }
    }

    fn and(self, other: Self) -> Self {
        let types = self.types & other.types;
        let values = match (self.values, other.values) {
            (Some(mut a), Some(b)) => {
                a.retain(|x| b.iter().any(|y| same(x, y)));
                Some(a)
            }
            (a, b) => a.or(b),
        };
        let values = values.map(|mut v| {
            v.retain(|x| bits_of(x) & types != 0);
            v
        });
        match values {
            Some(v) => Self {
                types: types & v.iter().fold(0, |b, v| b | bits_of(v)),
                values: Some(v),
            },
            None => Self { types, values },
        }
    }

    fn or(self, other: Self) -> Self {
        let values = match (self.values, other.values) {
            (Some(mut a), Some(b)) => {
                a.extend(b);
                Some(a)
            }
            _ => None,
        };
        Self {
            types: self.types | other.types,
            values,
        }
    }

    pub(crate) fn may_be_list(&self) -> bool {
        self.types & ARRAY != 0
    }

    /// In words.
    pub(crate) fn words(&self) -> String {
        if let Some(v) = &self.values
            && (1..=4).contains(&v.len())
        {
            let all: Vec<_> = v.iter().map(|v| format!("`{v}`")).collect();
            return all.join(" or ");
        }
        if self.types == ALL {
            return "any value".into();
        }
        let number = match self.types & (INTEGER | FRACTION) {
            INTEGER => "an integer",
            _ => "a number",
        };
        let names = [
            (STRING, "a string"),
            (INTEGER | FRACTION, number),
            (BOOL, "a boolean"),
            (ARRAY, "a list"),
            (OBJECT, "an object"),
            (NULL, "null"),
        ];
        let held: Vec<_> = names
            .iter()
            .filter(|(b, _)| self.types & b != 0)
            .map(|(_, n)| *n)
            .collect();
        match held.is_empty() {
            true => "nothing".into(),
            false => held.join(" or "),
        }
    }
}

impl Default for Look {
    fn default() -> Self {
        Self {
            fuel: Cell::new(10_000),
        }
    }
}

impl Look {
    fn tired(&self) -> bool {
        let left = self.fuel.get();
        self.fuel.set(left.saturating_sub(1));
        left == 0
    }

    pub(crate) fn kind<'a>(&self, s: &Shape<'a>) -> Kind<'a> {
        if self.tired() {
            return Kind::any();
        }
        match s {
            Shape::Any => Kind::any(),
            Shape::Never => Kind::typed(0),
            Shape::Schema(s) => self
                .deeper(|l| l.kind(&s.expand()))
                .unwrap_or_else(Kind::any),
            Shape::Own(s) => s.kind(),
            Shape::Values(v) => Kind::listed(Some(v.clone())),
            Shape::All(v) => v.iter().fold(Kind::any(), |k, s| k.and(self.kind(s))),
            Shape::OneOf(v) => {
                let kinds = v.iter().map(|s| self.kind(s));
                kinds.reduce(Kind::or).unwrap_or_else(Kind::any)
            }
            Shape::List(_) => Kind::typed(ARRAY),
            Shape::Record(_) => Kind::typed(OBJECT),
        }
    }

    /// Each expansion costs a hundredth of the effort, which also bounds how deep it goes.
    fn deeper<T>(&self, f: impl FnOnce(&Self) -> T) -> Option<T> {
        let left = self.fuel.get();
        if left < 100 {
            return None;
        }
        self.fuel.set(left - 100);
        Some(f(self))
    }

    /// What stands under a key or an index.
    pub(crate) fn step<'a>(&self, s: &Shape<'a>, token: &str) -> Shape<'a> {
        if self.tired() {
            return Shape::Any;
        }
        match s {
            Shape::Any => Shape::Any,
            Shape::Never => Shape::Never,
            Shape::Schema(s) => {
                let inner = self.deeper(|l| l.step(&s.expand(), token));
                inner.unwrap_or(Shape::Any)
            }
            Shape::Own(s) => step_own(*s, token),
            Shape::Values(v) => step_values(v, token),
            Shape::All(v) => all(v.iter().map(|s| self.step(s, token)).collect()),
            Shape::OneOf(v) => one_of(v.iter().map(|s| self.step(s, token)).collect()),
            Shape::List(e) => place(token).map_or(Shape::Never, |_| (**e).clone()),
            Shape::Record(fields) => {
                let f = fields.iter().find(|(n, _)| n == token);
                f.map_or(Shape::Never, |(_, s)| s.clone())
            }
        }
    }

    /// What each element of a list may be.
    pub(crate) fn elements<'a>(&self, s: &Shape<'a>) -> Shape<'a> {
        if self.tired() {
            return Shape::Any;
        }
        match s {
            Shape::Schema(s) => {
                let inner = self.deeper(|l| l.elements(&s.expand()));
                inner.unwrap_or(Shape::Any)
            }
            Shape::Own(s) if s.kind().may_be_list() => s.elements(),
            Shape::All(v) => all(v.iter().map(|s| self.elements(s)).collect()),
            Shape::OneOf(v) => one_of(v.iter().map(|s| self.elements(s)).collect()),
            Shape::List(e) => (**e).clone(),
            Shape::Any | Shape::Values(_) => Shape::Any,
            Shape::Own(_) | Shape::Never | Shape::Record(_) => Shape::Never,
        }
    }

    /// The fields that an object must have.
    pub(crate) fn required(&self, s: &Shape<'_>) -> BTreeSet<String> {
        match s {
            _ if self.tired() => BTreeSet::new(),
            Shape::Schema(s) => {
                let inner = self.deeper(|l| l.required(&s.expand()));
                inner.unwrap_or_default()
            }
            Shape::Own(s) => {
                let names = s.list("required").into_iter().flatten();
                names.filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Shape::All(v) => v.iter().flat_map(|s| self.required(s)).collect(),
            Shape::OneOf(v) => {
                let sets = v.iter().map(|s| self.required(s));
                sets.reduce(|a, b| &a & &b).unwrap_or_default()
            }
            Shape::Any | Shape::Never | Shape::Values(_) | Shape::List(_) | Shape::Record(_) => {
                BTreeSet::new()
            }
        }
    }

    /// The fields that an object is known to may have.
    pub(crate) fn fields(&self, s: &Shape<'_>) -> BTreeSet<String> {
        match s {
            _ if self.tired() => BTreeSet::new(),
            Shape::Schema(s) => {
                let inner = self.deeper(|l| l.fields(&s.expand()));
                inner.unwrap_or_default()
            }
            Shape::Own(s) => {
                let known = s.map.get("properties").and_then(Value::as_object);
                known.into_iter().flat_map(Map::keys).cloned().collect()
            }
            Shape::All(v) | Shape::OneOf(v) => v.iter().flat_map(|s| self.fields(s)).collect(),
            Shape::Record(f) => f.iter().map(|(n, _)| n.clone()).collect(),
            Shape::Any | Shape::Never | Shape::Values(_) | Shape::List(_) => BTreeSet::new(),
        }
    }

    /// Why no value of `found` is one of `expected`, if that is certain. Lists of other elements
    /// count as such, although an empty one would fit.
    pub(crate) fn mismatch(&self, found: &Shape<'_>, expected: &Shape<'_>) -> Option<Mismatch> {
        if self.tired() {
            return None;
        }
        let (f, e) = (self.kind(found), self.kind(expected));
        let common = f.clone().and(e.clone());
        if common.types == 0 || common.values.as_ref().is_some_and(Vec::is_empty) {
            return Some(Mismatch {
                at: String::new(),
                expected: e.words(),
                found: f.words(),
            });
        }
        match common.types {
            ARRAY => {
                let (f, e) = (self.elements(found), self.elements(expected));
                // A list that must be empty is no mistake of type.
                if matches!(f, Shape::Never) || matches!(e, Shape::Never) {
                    return None;
                }
                self.mismatch(&f, &e).map(|m| m.below("-"))
            }
            OBJECT => self.fields_mismatch(found, expected),
            _ => None,
        }
    }

    fn fields_mismatch(&self, found: &Shape<'_>, expected: &Shape<'_>) -> Option<Mismatch> {
        for name in self.required(expected) {
            let (f, e) = (self.step(found, &name), self.step(expected, &name));
            if matches!(f, Shape::Never) {
                return Some(Mismatch {
                    at: String::new(),
                    expected: format!("an object with `{name}`"),
                    found: with_fields("an object", &self.fields(found)),
                });
            }
            if let Some(m) = self.mismatch(&f, &e) {
                return Some(m.below(&name));
            }
        }
        for name in self.required(found) {
            let (f, e) = (self.step(found, &name), self.step(expected, &name));
            if matches!(e, Shape::Never) {
                return Some(Mismatch {
                    at: String::new(),
                    expected: with_fields("an object", &self.fields(expected)),
                    found: format!("an object with `{name}`"),
                });
            }
            if let Some(m) = self.mismatch(&f, &e) {
                return Some(m.below(&name));
            }
        }
        None
    }
}

impl Mismatch {
    fn below(mut self, token: &str) -> Self {
        let token = token.replace('~', "~0").replace('/', "~1");
        self.at.insert_str(0, &format!("/{token}"));
        self
    }
}

/// `what with only a, b`.
pub(crate) fn with_fields(what: &str, names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return format!("{what} without fields");
    }
    let names: Vec<_> = names.iter().map(|n| format!("`{n}`")).collect();
    format!("{what} with only {}", names.join(", "))
}

/// An index as RFC 6901 writes it.
fn place(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with(['0', '+']);
    plain.then(|| token.parse().ok()).flatten()
}

fn step_own<'a>(s: Sub<'a>, token: &str) -> Shape<'a> {
    let kind = s.kind();
    if let Some(v) = &kind.values {
        return step_values(v, token);
    }
    let mut found = Vec::new();
    if kind.types & OBJECT != 0 {
        found.push(s.property(token));
    }
    if kind.types & ARRAY != 0
        && let Some(i) = place(token)
    {
        found.push(s.element(i));
    }
    one_of(found)
}

fn step_values<'a>(v: &[&'a Value], token: &str) -> Shape<'a> {
    let inner = |v: &&'a Value| match v {
        Value::Object(m) => m.get(token),
        Value::Array(a) => a.get(place(token)?),
        _ => None,
    };
    let found: Vec<_> = v.iter().filter_map(inner).collect();
    match found.is_empty() {
        true => Shape::Never,
        false => Shape::Values(found),
    }
}
