//! Where our init containers stand among the user's.

use std::borrow::Cow;

use super::super::editor::Editor;
use super::super::pin::{self, is_named, items};
use super::super::tree::Tree;
use super::{Context, Draft, InitContainer};
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
pub(super) fn write(editor: &mut Editor<'_>, inits: Vec<InitContainer>, place: usize) {
    let wanted = |c: &Tree<'_>| inits.iter().any(|init| is_named(c, init.name));
    let mut others = 0;
    let mut stale = Vec::new();
    for container in items(editor.document(), "initContainers") {
        if !pin::is_our_init(container) {
            others += 1;
        } else if !wanted(container) || others != place {
            stale.extend(container.get("name").and_then(Tree::as_str).map(Cow::into_owned));
        }
    }
    let is_stale = |c: &Tree<'_>| pin::is_our_init(c) && stale.iter().any(|name| is_named(c, name));
    editor.drop_items(&["spec"], "initContainers", is_stale);
    let mut next = place;
    for InitContainer { name, json } in inits {
        let is_it = |c: &Tree<'_>| is_named(c, name);
        let mut at = items(editor.document(), "initContainers").iter().position(is_it);
        if at.is_some_and(|at| at < next) {
            editor.drop_items(&["spec"], "initContainers", is_it);
            next -= 1;
            at = None;
        }
        editor.ensure(&["spec"], "initContainers", (name, Tree::text(json)), Some(next));
        next = at.unwrap_or(next) + 1;
    }
}
