//! No edge is refused that could work: random schemas against a validator and random values.

use serde_json::{Value, json};
use smallhands_core::TaskSpec;
use smallhands_graph::{GraphError, TaskGraph};

/// A small generator, so that a failure is the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len() as u64) as usize]
    }

    fn leaf(&mut self) -> Value {
        let leaves = [
            json!(null),
            json!(true),
            json!(1),
            json!(1.0),
            json!(2.5),
            json!("a"),
        ];
        self.pick(&leaves).clone()
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.roll(if depth == 0 { 2 } else { 6 }) {
            0 | 1 => self.leaf(),
            2 | 3 => (0..=self.roll(2)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let names = ["a", "b", "0"];
                let fields = (0..self.roll(3)).map(|_| {
                    let name = (*self.pick(&names)).to_owned();
                    (name, self.value(depth - 1))
                });
                Value::Object(fields.collect())
            }
        }
    }

    fn schemas(&mut self, depth: u32) -> Value {
        (0..=self.roll(2)).map(|_| self.schema(depth)).collect()
    }

    fn schema(&mut self, depth: u32) -> Value {
        let types = [
            "null", "boolean", "integer", "number", "string", "array", "object",
        ];
        let mut s = json!({});
        if self.roll(3) == 0 {
            s["type"] = json!(self.pick(&types));
        }
        for _ in 0..=self.roll(3) {
            match self.roll(if depth == 0 { 4 } else { 16 }) {
                0 => s["type"] = json!([self.pick(&types)]),
                1 => s["const"] = self.value(1),
                2 => s["enum"] = json!([self.leaf(), self.value(1)]),
                3 => s["$ref"] = json!(format!("#/$defs/{}", self.pick(&["x", "y"]))),
                4 => s["anyOf"] = self.schemas(depth - 1),
                5 => s["oneOf"] = self.schemas(depth - 1),
                6 => s["allOf"] = self.schemas(depth - 1),
                7 | 8 => s["properties"]["a"] = self.schema(depth - 1),
                9 => s["properties"]["0"] = self.schema(depth - 1),
                10 => s["additionalProperties"] = json!(false),
                11 => s["items"] = self.schema(depth - 1),
                12 => s["prefixItems"] = self.schemas(depth - 1),
                13 => s["required"] = json!([self.pick(&["a", "b"])]),
                14 => s["unevaluatedProperties"] = json!(false),
                _ => s["maxItems"] = json!(self.roll(2)),
            }
        }
        s
    }

    fn document(&mut self) -> Value {
        let mut s = self.schema(3);
        s["$defs"] = json!({"x": self.schema(1), "y": self.schema(1)});
        s
    }
}

fn has_empty_list(v: &Value) -> bool {
    match v {
        Value::Array(a) => a.is_empty() || a.iter().any(has_empty_list),
        Value::Object(m) => m.values().any(has_empty_list),
        _ => false,
    }
}

#[test]
fn an_edge_that_is_refused_has_no_value_that_passes() {
    let mut dice = Dice(0x5eed);
    let (mut refused, mut passed) = (0, 0);
    for _ in 0..2_000 {
        let (out, input) = (dice.document(), dice.document());
        let pointer = *dice.pick(&["", "", "/a", "/0", "/a/0", "/b/a"]);
        let (Ok(gives), Ok(takes)) = (
            jsonschema::validator_for(&out),
            jsonschema::validator_for(&input),
        ) else {
            continue;
        };
        let a = TaskSpec::new("a", "w").output_schema(out.clone());
        let b = TaskSpec::new("b", "w").bind("", "a", pointer);
        let verdict = TaskGraph::from_tasks([a, b.input_schema(input.clone())]);
        let blamed = matches!(verdict, Err(GraphError::EdgeType(_)));
        refused += usize::from(blamed);
        for _ in 0..60 {
            let v = dice.value(3);
            let Some(part) = v.pointer(pointer) else {
                continue;
            };
            // Lists of other elements are refused although an empty one would pass.
            if has_empty_list(&v) || !gives.is_valid(&v) || !takes.is_valid(part) {
                continue;
            }
            passed += 1;
            assert!(
                !blamed,
                "{v} passes\n{out}\n{pointer}\n{input}\n{verdict:?}"
            );
        }
    }
    assert!(
        refused > 200 && passed > 200,
        "{refused} refused, {passed} passed"
    );
}
