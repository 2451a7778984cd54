//! `terminationGracePeriodSeconds`: long enough for all that runs at a stop, because it includes the preStop handler.

use guardian_hook::protocol::{Chained, Installed};
use serde_json::json;

use super::super::pin::{Scalar, ScalarPath};
use super::super::tree::Tree;
use super::super::{MAX_GRACE, STOP_TIME};
use super::{Context, Draft};

const FIELD: &str = "terminationGracePeriodSeconds";
/// What the API server writes where the user writes nothing; so this value is taken for nobody's choice.
const DEFAULT: u64 = 30;

/// Raises the grace period to reason wait + hook + the user's own handler + [`STOP_TIME`], at most [`MAX_GRACE`]; never lowers it.
pub(super) fn change(cx: &Context<'_>, installed: &Installed, draft: &mut Draft) {
    let Some(hook) = installed.hooks.get("preStop") else { return };
    let was = cx.template.at(&["spec", FIELD]).map(Tree::value).unwrap_or_default();
    let current = was.as_u64().unwrap_or(DEFAULT);
    let chained = match &installed.chained {
        None => 0,
        // How long the user's own command takes is not written anywhere; what he allowed for is.
        Some(Chained::Exec(_)) => current,
        Some(Chained::Sleep { seconds }) => *seconds,
    };
    let hooks = installed.reason_wait_ms.saturating_add(hook.timeout_ms).div_ceil(1000);
    let all = hooks.saturating_add(chained).saturating_add(STOP_TIME.as_secs());
    let needed = all.min(MAX_GRACE.as_secs());
    if needed <= current {
        return;
    }
    if current != DEFAULT && !cx.policy.protect.overrides {
        draft.warnings.push(format!("{FIELD} stays {current} as you set it; the preStop handlers may take {needed} s in all"));
        return;
    }
    if all > needed {
        draft.warnings.push(format!("{FIELD} becomes {needed}, which is the most; the preStop handlers may take {all} s in all"));
    }
    draft.scalars.insert(ScalarPath::Spec(FIELD.to_owned()), Scalar { was, wrote: json!(needed) });
    draft.changes.push(FIELD);
}
