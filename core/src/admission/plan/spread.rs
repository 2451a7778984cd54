//! `topologySpreadConstraints`: the pods of a set apart from each other, where that is possible.

use serde_json::{Value, json};

use super::super::pin::{Scalar, ScalarPath};
use super::super::tree::Tree;
use super::{Context, Draft};

const FIELD: &str = "topologySpreadConstraints";

/// Writes a constraint for each topology key of the policy, where the user has none at all: his own are a whole, to which nothing is added.
///
/// The pods that count are those that the set itself selects. `ScheduleAnyway` never keeps a pod from being scheduled.
pub(super) fn change(cx: &Context<'_>, draft: &mut Draft) {
    let keys = &cx.policy.protect.spread;
    let selector = cx.set.selector.filter(|_| !keys.is_empty()).and_then(|s| serde_json::from_str::<Value>(s.get()).ok());
    let Some(selector) = selector.filter(|s| s.as_object().is_some_and(|s| !s.is_empty())) else { return };
    let was = cx.template.at(&["spec", FIELD]).map(Tree::value).unwrap_or_default();
    if !was.is_null() && was.as_array().is_none_or(|own| !own.is_empty()) {
        draft.warnings.push(format!("{FIELD} stays as you set it; the policy would write one for {}", keys.join(", ")));
        return;
    }
    let constraint = |key| {
        json!({
            "labelSelector": selector,
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
        })
    };
    let wrote = keys.iter().map(constraint).collect();
    draft.scalars.insert(ScalarPath::Spec(FIELD.to_owned()), Scalar { was, wrote });
    draft.changes.push(FIELD);
}
