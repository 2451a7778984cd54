//! The pages: pure functions from a view to HTML. Whatever somebody else has written, such as the message of a hook, is escaped by maud.
//!
//! A page is a list of fragments, each an element with an id and a version that follows from its content. A browser with scripts swaps those
//! whose version has changed; one without has the same page as of the time when it asked.

mod plots;
mod set;
mod start;
#[cfg(test)]
mod tests;
mod timeline;
mod words;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::view::{Scope, View};

/// A round badge: the guardian's mark.
pub(super) const ICON: &str = include_str!("icon.svg");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");

/// Which page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// All sets.
    Start,
    /// One.
    Set {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A part of a page that is swapped as a whole.
pub(super) struct Fragment {
    pub(super) id: &'static str,
    /// Another one, another content.
    pub(super) version: String,
    /// The element.
    pub(super) html: String,
}

impl Page {
    /// Is there something to show?
    pub(super) fn is_there(&self, view: &View) -> bool {
        match self {
            Self::Start => true,
            Self::Set { namespace, name } => !view.settled || view.set(namespace, name).is_some(),
        }
    }

    fn path(&self) -> String {
        match self {
            Self::Start => String::new(),
            Self::Set { namespace, name } => format!("sets/{namespace}/{name}"),
        }
    }

    fn title(&self, scope: &Scope) -> String {
        match (self, scope) {
            (Self::Set { namespace, name }, _) => format!("{name} in {namespace}"),
            (Self::Start, Scope::Namespace(namespace)) => format!("Sets of {namespace}"),
            (Self::Start, Scope::Enabled) => "Sets of all enabled namespaces".to_owned(),
        }
    }
}

impl Fragment {
    /// `now` takes no part in the version by itself: only what is shown does.
    fn new(id: &'static str, content: Markup) -> Self {
        // Both would end a line of the stream, or the stream.
        let content = content.into_string().replace(['\r', '\0'], " ");
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let version = format!("{:016x}", hasher.finish());
        let html = html! { div id=(id) data-v=(version) { (PreEscaped(content)) } }.into_string();
        Self { id, version, html }
    }
}

/// The fragments of a page, in their order. A set that is not there has the same ones, with less in them.
pub(super) fn fragments(view: &View, page: &Page, base: &str, now: Timestamp) -> Vec<Fragment> {
    let notices = Fragment::new("notices", notices(view));
    match page {
        Page::Start => {
            vec![Fragment::new("summary", start::summary(view)), notices, Fragment::new("sets", start::sets(view, base))]
        }
        Page::Set { namespace, name } => {
            let Some(set) = view.set(namespace, name) else {
                let mut parts = vec![Fragment::new("head", missing(view, namespace, name)), notices];
                parts.extend(set::PARTS.map(|id| Fragment::new(id, html! {})));
                return parts;
            };
            let key = (namespace.clone(), name.clone());
            let told = view.told.get(&key).map(Vec::as_slice).unwrap_or_default();
            let plots = view.metrics.sets.get(&key).map(|plots| plots.as_slice()).unwrap_or_default();
            let mut parts = vec![Fragment::new("head", set::head(set)), notices];
            let contents = [
                set::doing(set),
                set::pods(set),
                timeline::section(set, now),
                plots::section(plots),
                set::told(told),
                set::history(set),
            ];
            parts.extend(set::PARTS.into_iter().zip(contents).map(|(id, content)| Fragment::new(id, content)));
            parts
        }
    }
}

/// A page with everything in it; `base` is where all addresses begin.
pub(super) fn whole(view: &View, page: &Page, base: &str, nonce: &str, now: Timestamp) -> String {
    let title = page.title(&view.scope);
    let page_html = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " - guardian" }
                link rel="icon" type="image/svg+xml" href={ (base) "icon.svg" };
                style nonce=(nonce) { (PreEscaped(STYLE)) }
            }
            body data-live={ (base) "live/" (page.path()) } {
                a.skip href="#main" { "Skip to the content" }
                header {
                    nav aria-label="Where you are" {
                        a.home href=(base) { (PreEscaped(ICON)) "guardian" }
                        @if let Page::Set { namespace, name } = page {
                            span.sep aria-hidden="true" { "/" } span.where { (namespace) }
                            span.sep aria-hidden="true" { "/" } span.where aria-current="page" { (name) }
                        } @else {
                            span.sep aria-hidden="true" { "/" }
                            span.where aria-current="page" {
                                @match &view.scope {
                                    Scope::Namespace(namespace) => (namespace),
                                    Scope::Enabled => "all enabled namespaces",
                                }
                            }
                        }
                    }
                    p #live role="status" data-state="off" { "as of " (words::time(view.at)) }
                }
                main #main tabindex="-1" {
                    @if matches!(page, Page::Start) { h1.hidden { (title) } }
                    @for fragment in fragments(view, page, base, now) { (PreEscaped(fragment.html)) }
                }
                footer { "Read only, with the rights of whoever started it. Times are UTC." }
                script nonce=(nonce) { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page_html.into_string()
}

fn missing(view: &View, namespace: &str, name: &str) -> Markup {
    html! {
        h1 { (name) }
        @if view.settled {
            p { "There is no StatefulSet " (name) " in " (namespace) " that this dashboard can see. What was recorded of it stays in its ledger: "
                code { "guardian history -n " (namespace) " " (name) } "." }
        } @else {
            p { "Being read." }
        }
    }
}

fn notices(view: &View) -> Markup {
    html! {
        @if !view.notices.is_empty() {
            ul.notices aria-label="Notices" {
                @for notice in &view.notices { li { (words::mark(words::Tone::Wait)) span { (notice) } } }
            }
        }
    }
}
