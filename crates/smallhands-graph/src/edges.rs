//! Edges between tasks against the schemas that the tasks declare.

#[cfg(feature = "schema")]
pub(crate) use checked::check_edges;

/// Without the feature no task may declare a schema.
#[cfg(not(feature = "schema"))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "the same shape as with the feature"
)]
pub(crate) fn check_edges(
    _: &[std::sync::Arc<smallhands_core::TaskSpec>],
    _: crate::check::Known<'_>,
) -> Result<(), Box<crate::check::Located>> {
    Ok(())
}

#[cfg(feature = "schema")]
mod checked {
    use crate::{
        EdgeFault, GraphError, TaskFault,
        check::{Known, Located, Path, full_id, index, key},
        schema,
        shape::{Look, Shape, schema as shape_of, with_fields},
    };
    use serde_json::Value;
    use smallhands_core::{TaskId, TaskSpec};
    use std::{
        collections::{BTreeSet, HashMap},
        sync::Arc,
    };

    /// The task that holds a sub-graph, and its id in the run.
    #[derive(Clone, Copy)]
    struct Holder<'h> {
        spec: &'h TaskSpec,
        id: &'h TaskId,
    }

    /// One thing that a task takes.
    struct Edge<'e> {
        field: &'e str,
        from: &'e TaskId,
        pointer: &'e str,
        at: Path,
        /// What is taken is one element of it.
        element: bool,
    }

    /// Checks what these tasks take from each other and from those that exist already, as far as
    /// they declare schemas.
    pub(crate) fn check_edges(
        tasks: &[Arc<TaskSpec>],
        existing: Known<'_>,
    ) -> Result<(), Box<Located>> {
        if !tasks.iter().any(|t| declares(t)) {
            return Ok(());
        }
        let by_id: HashMap<&TaskId, &Arc<TaskSpec>> = tasks.iter().map(|t| (&t.id, t)).collect();
        let find = |id: &TaskId| {
            by_id
                .get(id)
                .map(|t| Arc::clone(t))
                .or_else(|| existing(id))
        };
        edges(tasks, &find, None)
    }

    fn declares(t: &TaskSpec) -> bool {
        let inner = |t: &TaskSpec| {
            t.graph
                .as_ref()
                .is_some_and(|g| g.tasks.iter().any(|t| declares(t)))
        };
        t.map.is_some() || t.input_schema.is_some() || t.output_schema.is_some() || inner(t)
    }

    fn edges(
        tasks: &[Arc<TaskSpec>],
        lookup: Known<'_>,
        holder: Option<Holder<'_>>,
    ) -> Result<(), Box<Located>> {
        for (i, t) in tasks.iter().enumerate() {
            let id = full_id(holder.map(|h| h.id), &t.id);
            into_task(t, &id, lookup, holder).map_err(|e| e.under(index(i)))?;
            if let Some(g) = &t.graph {
                let inner = |id: &TaskId| g.tasks.iter().find(|t| t.id == *id).cloned();
                edges(&g.tasks, &inner, Some(Holder { spec: t, id: &id }))
                    .map_err(|e| e.under(index(i).key("graph").key("tasks")))?;
            }
        }
        Ok(())
    }

    fn into_task(
        t: &TaskSpec,
        id: &TaskId,
        lookup: Known<'_>,
        holder: Option<Holder<'_>>,
    ) -> Result<(), Box<Located>> {
        let taken = edges_of(t);
        for e in &taken {
            let source = if *e.from == t.id {
                None
            } else {
                lookup(e.from)
            };
            let (given, from) = match holder {
                Some(h) if e.from.as_str().is_empty() => (input_of(h.spec), h.id.clone()),
                _ if *e.from == t.id => (output_of_one(t), id.clone()),
                _ => {
                    let given = source.as_deref().map_or(Shape::Any, output_of);
                    (given, full_id(holder.map(|h| h.id), e.from))
                }
            };
            if let Err((expected, found)) = check_edge(t, e, given) {
                let fault = EdgeFault {
                    task: id.clone(),
                    field: e.field.into(),
                    from,
                    pointer: e.pointer.into(),
                    expected,
                    found,
                };
                let error = GraphError::EdgeType(Box::new(fault));
                return Err(Located::new(e.at.clone(), error));
            }
        }
        check_rest(t, &taken).map_err(|fault| {
            let task = id.clone();
            Located::new(key("input"), GraphError::Invalid { task, fault })
        })
    }

    fn edges_of(t: &TaskSpec) -> Vec<Edge<'_>> {
        let bound = t.bind.iter().enumerate().map(|(i, b)| Edge {
            field: &b.field,
            from: &b.from,
            pointer: &b.pointer,
            at: key("bind").index(i),
            element: false,
        });
        let mapped = t.map.iter().map(|m| Edge {
            field: &m.field,
            from: &m.from,
            pointer: &m.pointer,
            at: key("map"),
            element: true,
        });
        let fed = t.repeat.iter().filter_map(|r| r.feed.as_deref());
        let fed = fed.map(|field| Edge {
            field,
            from: &t.id,
            pointer: "",
            at: key("repeat").key("feed"),
            element: false,
        });
        bound.chain(mapped).chain(fed).collect()
    }

    /// What is expected and what is found, if that does not fit.
    fn check_edge(t: &TaskSpec, e: &Edge<'_>, given: Shape<'_>) -> Result<(), (String, String)> {
        let look = Look::default();
        let input = input_of(t);
        let wanted = match e.field {
            "" => input.clone(),
            f => look.step(&input, f),
        };
        let value =
            walk(&look, given, e.pointer).map_err(|found| (look.kind(&wanted).words(), found))?;
        let value = match e.element {
            true if !look.kind(&value).may_be_list() => {
                return Err(("a list".into(), look.kind(&value).words()));
            }
            true => look.elements(&value),
            false => value,
        };
        if matches!(wanted, Shape::Never) {
            let why = with_fields("an input", &look.fields(&input));
            return Err((why, look.kind(&value).words()));
        }
        // A list that is always empty makes no instance.
        if e.element && matches!(value, Shape::Never) {
            return Ok(());
        }
        match look.mismatch(&value, &wanted) {
            None => Ok(()),
            Some(m) if m.at.is_empty() => Err((m.expected, m.found)),
            Some(m) => Err((format!("{} at `{}`", m.expected, m.at), m.found)),
        }
    }

    /// Follows the pointer; the error says where it ends.
    fn walk<'a>(look: &Look, given: Shape<'a>, pointer: &str) -> Result<Shape<'a>, String> {
        let mut at = given;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = look.step(&at, &token);
            if matches!(next, Shape::Never) {
                let names = look.fields(&at);
                let kind = look.kind(&at).words();
                return Err(match names.is_empty() {
                    true => format!("{kind}, which has no `{token}`"),
                    false => with_fields(&kind, &names),
                });
            }
            at = next;
        }
        Ok(at)
    }

    fn input_of(t: &TaskSpec) -> Shape<'_> {
        t.input_schema.as_deref().map_or(Shape::Any, shape_of)
    }

    /// What others see: a map gives the list of what its instances give.
    fn output_of(t: &TaskSpec) -> Shape<'_> {
        match t.map {
            Some(_) => Shape::List(Box::new(output_of_one(t))),
            None => output_of_one(t),
        }
    }

    fn output_of_one(t: &TaskSpec) -> Shape<'_> {
        match (&t.output_schema, &t.graph) {
            (Some(s), _) => shape_of(s),
            (None, None) => Shape::Any,
            (None, Some(g)) => match &g.output {
                Some(o) => {
                    let child = g.tasks.iter().find(|t| t.id == *o);
                    child.map_or(Shape::Any, |t| output_of(t))
                }
                None => {
                    let field = |t: &'_ Arc<TaskSpec>| t.id.to_string();
                    let fields = g.tasks.iter().map(|t| (field(t), output_of(t)));
                    Shape::Record(fields.collect())
                }
            },
        }
    }

    /// What no edge sets: the constant input, or the fields that are missing altogether.
    fn check_rest(t: &TaskSpec, taken: &[Edge<'_>]) -> Result<(), TaskFault> {
        let Some(s) = &t.input_schema else {
            return Ok(());
        };
        if taken.is_empty() {
            return schema::fits(s, &t.input).map_err(TaskFault::Input);
        }
        let set: BTreeSet<&str> = taken.iter().map(|e| e.field).collect();
        if set.contains("") {
            return Ok(());
        }
        let constant = |f: &str| matches!(&t.input, Value::Object(m) if m.contains_key(f));
        let wanted = Look::default().required(&shape_of(s));
        match wanted
            .into_iter()
            .find(|f| !set.contains(f.as_str()) && !constant(f))
        {
            Some(f) => Err(TaskFault::InputMissing(f)),
            None => Ok(()),
        }
    }
}

#[cfg(all(test, feature = "schema"))]
mod tests {
    use super::*;
    use serde_json::json;
    use smallhands_core::{TaskId, TaskSpec};
    use std::sync::Arc;

    #[test]
    fn a_patch_is_checked_against_tasks_that_are_there_already() {
        let a = Arc::new(TaskSpec::new("a", "w").output_schema(json!({"type": "integer"})));
        let b = |ty: &str| {
            let schema = json!({"properties": {"x": {"type": ty}}});
            Arc::new(
                TaskSpec::new("b", "w")
                    .bind("x", "a", "")
                    .input_schema(schema),
            )
        };
        let lookup = |id: &TaskId| (a.id == *id).then(|| a.clone());
        assert!(check_edges(&[b("number")], &lookup).is_ok());
        let e = check_edges(&[b("string")], &lookup).unwrap_err();
        assert_eq!(e.error.code(), "graph.edge_type");
        // Without its spec a task gives anything.
        assert!(check_edges(&[b("string")], &|_| None).is_ok());
    }
}
