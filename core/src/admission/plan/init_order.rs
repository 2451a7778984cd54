//! Where our init containers stand among the user's.

use serde_json::Value;

use super::super::editor::Editor;
use super::super::pin::{self, is_named, items};
use super::{Context, Draft};
use crate::policy::InitOrder;

/// How many of the user's init containers come before ours. One that is not there to come before or after leaves ours first, with a warning.
pub(super) fn place(cx: &Context<'_>, draft: &mut Draft) -> usize {
    let own = items(cx.template, "initContainers");
    let (name, after) = match &cx.policy.inject.init_order {
        InitOrder::First => return 0,
        InitOrder::Last => return own.len(),
        InitOrder::Before(name) => (name, 0),
        InitOrder::After(name) => (name, 1),
    };
    match own.iter().position(|c| is_named(c, name)) {
        Some(at) => at + after,
        None => {
            draft.warnings.push(format!("guardian-init comes first: there is no init container {name}, which the policy names"));
            0
        }
    }
}

/// Brings `inits` into the list, in their order, `place` of the others before them. What is there already and at its place stays there.
pub(super) fn write(editor: &mut Editor, inits: &[Value], place: usize) {
    let listed = items(editor.document(), "initContainers");
    let wanted = |c: &Value| inits.iter().any(|init| init.get("name") == c.get("name"));
    let mut others = 0;
    let mut stale = Vec::new();
    for container in listed {
        if !pin::is_our_init(container) {
            others += 1;
        } else if !wanted(container) || others != place {
            stale.push(container.get("name").cloned());
        }
    }
    editor.drop_items(&["spec"], "initContainers", |c| pin::is_our_init(c) && stale.contains(&c.get("name").cloned()));
    let mut next = place;
    for container in inits {
        let name = container.get("name");
        let at = position(editor, name);
        if at.is_some_and(|at| at < next) {
            editor.drop_items(&["spec"], "initContainers", |c| c.get("name") == name);
            next -= 1;
        }
        editor.ensure(&["spec"], "initContainers", container, Some(next));
        next = position(editor, name).map_or(next, |at| at + 1);
    }
}

fn position(editor: &Editor, name: Option<&Value>) -> Option<usize> {
    items(editor.document(), "initContainers").iter().position(|c| c.get("name") == name)
}
