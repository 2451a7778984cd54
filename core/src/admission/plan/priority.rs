//! `priorityClassName`: what is evicted last, and what makes room for itself.

use serde_json::json;

use super::super::pin::{Scalar, ScalarPath};
use super::super::tree::Tree;
use super::{Context, Draft};

const FIELD: &str = "priorityClassName";

/// Writes the policy's PriorityClass, where the user has none or the policy says `override`. One that does not exist is not written: the API server would refuse the
/// pods; nor is a `system-` one, which is reserved for the cluster's own.
pub(super) fn change(cx: &Context<'_>, draft: &mut Draft) {
    let Some(class) = &cx.policy.protect.priority_class_name else { return };
    let was = cx.template.at(&["spec", FIELD]).map(Tree::value).unwrap_or_default();
    if let Some(own) = was.as_str().filter(|own| !own.is_empty()) {
        if own == class {
            return;
        }
        if !cx.policy.protect.overrides {
            draft.warnings.push(format!("{FIELD} stays {own} as you set it; the policy would write {class}"));
            return;
        }
    }
    if class.starts_with("system-") {
        draft.warnings.push(format!("{FIELD} {class} is not written: names that begin with system- are the cluster's own"));
        return;
    }
    if cx.snapshot.priority_classes.as_ref().is_some_and(|known| !known.contains(class)) {
        draft.warnings.push(format!("{FIELD} {class} is not written: there is no such PriorityClass, create it first"));
        return;
    }
    draft.scalars.insert(ScalarPath::Spec(FIELD.to_owned()), Scalar { was, wrote: json!(class) });
    draft.changes.push(FIELD);
}
