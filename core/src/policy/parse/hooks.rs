//! Hooks, tasks, and the programs that they run.

use std::collections::BTreeMap;
use std::time::Duration;

use guardian_hook::protocol::MAX_SPEC;
use serde_saphyr::Location;

use super::Check;
use crate::admission::{MAX_GRACE, STOP_TIME};
use crate::names::POLICY_KEY;
use crate::policy::problem::{PolicyError, Problem};
use crate::policy::schema::{self, Spanned};
use crate::policy::{
    DEFAULT_BACKOFF, DEFAULT_TIMEOUT, Freeze, Held, Hook, Hooks, MAX_RETRIES, MAX_SCRIPT_BYTES, MAX_TIMEOUT, OnFailure, Position,
    Probe, Program, Schedule, Target, Task, When, yaml,
};

/// Longest freeze of a hook that names none.
const DEFAULT_FREEZE: Duration = Duration::from_secs(60);
/// Bytes that the pod needs beside the hooks: two names of at most 253 bytes, keys, and a preStop of the user's own, which is seldom
/// over 4 KiB. Where it is, the set goes through unguarded, with a warning.
const SPEC_RESERVE: usize = 8 * 1024;

/// What the place of a hook means for its keys.
#[derive(Clone, Copy)]
struct Terms {
    name: &'static str,
    /// Who starts it.
    by: By,
    /// Which targets are possible; empty: only the pod that the occasion is about.
    targets: &'static [Pods],
    /// The default: may an attempt of unknown outcome be made again?
    idempotent: bool,
    /// The default: what must hold of the pod?
    when: When,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The pod, before the application starts.
    Start,
    /// The pod, at its stop.
    Stop,
    /// The controller.
    Controller,
}

/// A kind of target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pods {
    Itself,
    Any,
    All,
    Ordinal,
    Role,
}

const ANYWHERE: &[Pods] = &[Pods::Itself, Pods::Any, Pods::All, Pods::Ordinal, Pods::Role];
const ONE: &[Pods] = &[Pods::Any, Pods::Ordinal];
const PEER: &[Pods] = &[Pods::Any, Pods::Ordinal, Pods::Role];

impl Terms {
    const fn of(name: &'static str, by: By, targets: &'static [Pods]) -> Self {
        Self { name, by, targets, idempotent: false, when: When::Running }
    }
}

impl Check<'_> {
    pub(super) fn hooks(&mut self, hooks: Option<schema::Hooks>) -> Hooks {
        use By::{Controller, Start, Stop};
        let Some(hooks) = hooks else { return Hooks::default() };
        // Pods that are ready only once they have joined are not ready before there is a cluster.
        let first = if self.declared.ready_after { When::Running } else { When::Ready };
        let again = |name| Terms { idempotent: true, ..Terms::of(name, Controller, &[]) };
        Hooks {
            init: hooks.init.map(|h| self.named(h, Terms::of("init", Start, &[]))),
            rejoin: hooks.rejoin.map(|h| self.named(h, again("rejoin"))),
            pre_stop: hooks.pre_stop.map(|h| self.named(h, Terms::of("preStop", Stop, &[]))),
            position: hooks.position.map(|h| self.position(h)),
            restart: hooks.restart.map(|h| self.restart(h)),
            bootstrap: hooks.bootstrap.map(|h| self.named(h, Terms { when: first, ..Terms::of("bootstrap", Controller, ONE) })),
            join: hooks.join.map(|h| self.named(h, again("join"))),
            leave: self.coming(hooks.leave, Terms::of("leave", Controller, &[])),
            switchover: hooks.switchover.map(|h| self.switchover(h)),
            before_update: self.coming(hooks.before_update, Terms::of("beforeUpdate", Controller, &[])),
            after_update: self.coming(hooks.after_update, Terms::of("afterUpdate", Controller, &[])),
            shutdown: self.coming(hooks.shutdown, Terms::of("shutdown", Controller, ANYWHERE)),
            post_mortem: hooks
                .post_mortem
                .map(|h| self.named(h, Terms::of("postMortem", Controller, &[Pods::Itself, Pods::Any]))),
            freeze: hooks.freeze.map(|h| self.freeze(h)),
            thaw: self.coming(hooks.thaw, Terms::of("thaw", Controller, &[])),
            fence: hooks.fence.map(|h| self.named(h, Terms::of("fence", Controller, PEER))),
        }
    }

    fn named(&mut self, hook: Spanned<schema::Hook>, terms: Terms) -> Hook {
        self.hook(&format!("hooks.{}", terms.name), hook.referenced, hook.value, terms)
    }

    /// A hook that nothing runs yet.
    fn coming(&mut self, hook: Option<Spanned<schema::Hook>>, terms: Terms) -> Option<Hook> {
        let hook = hook?;
        self.later(&format!("hooks.{}", terms.name));
        Some(self.named(hook, terms))
    }

    fn position(&mut self, mut position: Spanned<schema::Position>) -> Position {
        self.later("hooks.position");
        let hook = position.value.hook();
        let alive = position.value.alive.map(|alive| {
            let Spanned { value: p, referenced } = alive;
            self.probe("hooks.position.alive", referenced, (p.script, p.command), p.container, p.timeout)
        });
        Position { hook: self.hook("hooks.position", position.referenced, hook, Terms::of("position", By::Start, &[])), alive }
    }

    fn restart(&mut self, hook: Spanned<schema::Hook>) -> Hook {
        let there = self.declared.hooks.contains("position");
        self.needs("hooks.restart", hook.referenced, there, "restart", "`hooks.position`: it tells which member is the seed");
        self.later("hooks.restart");
        self.named(hook, Terms::of("restart", By::Start, &[]))
    }

    fn switchover(&mut self, hook: Spanned<schema::Hook>) -> Hook {
        let at = hook.referenced;
        let hook = self.named(hook, Terms::of("switchover", By::Controller, &[Pods::Role]));
        let there = hook.target.is_some();
        self.needs("hooks.switchover", at, there, "switchover", "`target: \"role:NAME\"`: the role that is handed over");
        hook
    }

    fn freeze(&mut self, mut freeze: Spanned<schema::Freeze>) -> Freeze {
        self.later("hooks.freeze");
        let at = freeze.referenced;
        let hook = freeze.value.hook();
        let holds = freeze.value.hold.as_ref().is_some_and(|h| h.value);
        if !holds {
            let there = self.declared.hooks.contains("thaw");
            self.needs(
                "hooks.freeze",
                at,
                there,
                "freeze",
                "`hooks.thaw`, or `hold: true` where the process itself keeps the freeze",
            );
        }
        if let Some(ready) = freeze.value.ready.as_ref().filter(|_| !holds) {
            self.needs("hooks.freeze.ready", ready.referenced, false, "ready", "`hold: true`: only then is the output read");
        }
        Freeze {
            hook: self.hook("hooks.freeze", at, hook, Terms::of("freeze", By::Controller, &[])),
            hold: holds.then_some(Held { ready: freeze.value.ready.map(|r| r.value) }),
            max: self.duration("hooks.freeze.max".to_owned(), freeze.value.max, DEFAULT_FREEZE, MAX_TIMEOUT),
        }
    }

    pub(super) fn tasks(&mut self, tasks: Option<BTreeMap<String, Spanned<schema::Task>>>) -> BTreeMap<String, Task> {
        let tasks = tasks.unwrap_or_default();
        tasks.into_iter().map(|(name, task)| (name.clone(), self.task(&name, task))).collect()
    }

    fn task(&mut self, name: &str, mut task: Spanned<schema::Task>) -> Task {
        let path = format!("tasks.{}", name.chars().take(63).flat_map(char::escape_debug).collect::<String>());
        self.label(path.clone(), Spanned { value: name.to_owned(), referenced: task.referenced });
        let hook = task.value.hook();
        let own = hook.target.as_ref().filter(|t| t.value == "self").map(|t| t.referenced);
        let mut hook = self.hook(&path, task.referenced, hook, Terms::of("a task", By::Controller, ANYWHERE));
        let schedule = task.value.schedule.map(|cron| {
            self.later(&format!("{path}.schedule"));
            let at = cron.referenced;
            if let Some(own) = own {
                self.error(
                    format!("{path}.target"),
                    own,
                    Problem::NotHere { key: "target: self", hook: "a schedule", why: SCHEDULED },
                );
            }
            self.schedule(&path, at, cron.value, task.value.time_zone.as_ref())
        });
        match (&schedule, task.value.time_zone) {
            (None, Some(zone)) => self.needs(format!("{path}.timeZone"), zone.referenced, false, "timeZone", "`schedule`"),
            (None, None) => {}
            // A time is about no pod.
            (Some(_), _) => hook.target = Some(hook.target.take().unwrap_or(Target::Any)),
        }
        Task { hook, schedule }
    }

    fn schedule(&mut self, path: &str, at: Location, cron: String, zone: Option<&Spanned<String>>) -> Schedule {
        self.cron(format!("{path}.schedule"), at, &cron);
        let time_zone = zone.map_or_else(|| "UTC".to_owned(), |z| self.time_zone(format!("{path}.timeZone"), z));
        Schedule { cron, time_zone }
    }

    /// The hook of `traffic`.
    pub(super) fn drain(&mut self, hook: Spanned<schema::Hook>) -> Hook {
        self.hook("traffic.drain", hook.referenced, hook.value, Terms::of("drain", By::Controller, &[]))
    }

    fn hook(&mut self, path: &str, at: Location, hook: schema::Hook, terms: Terms) -> Hook {
        self.only_here(path, &hook, terms);
        if let Some(retries) = hook.retries.as_ref().filter(|r| r.value > MAX_RETRIES) {
            self.error(format!("{path}.retries"), retries.referenced, Problem::TooManyRetries(retries.value));
        }
        let longest = if terms.by == By::Stop { MAX_GRACE.saturating_sub(STOP_TIME) } else { MAX_TIMEOUT };
        Hook {
            program: self.program(path, at, hook.script, hook.command),
            target: hook.target.and_then(|t| self.hook_target(&format!("{path}.target"), &t, terms)),
            container: hook.container.map(|c| self.label(format!("{path}.container"), c)),
            when: hook.when.map_or(terms.when, |when| match when.value {
                schema::When::Running => When::Running,
                schema::When::Ready => When::Ready,
            }),
            timeout: self.duration(format!("{path}.timeout"), hook.timeout, DEFAULT_TIMEOUT, longest),
            retries: hook.retries.map_or(0, |r| r.value),
            backoff: self.duration(format!("{path}.backoff"), hook.backoff, DEFAULT_BACKOFF, MAX_TIMEOUT),
            idempotent: hook.idempotent.map_or(terms.idempotent, |i| i.value),
            on_failure: hook.on_failure.map_or(OnFailure::Continue, |on| match on.value {
                schema::OnFailure::Continue => OnFailure::Continue,
                schema::OnFailure::Block => OnFailure::Block,
                schema::OnFailure::Recreate => OnFailure::Recreate,
            }),
            env: hook.env.unwrap_or_default().into_iter().map(|(name, value)| self.variable(path, name, value)).collect(),
        }
    }

    /// Keys that say nothing for this hook. A pod runs its own hooks once an occasion, by itself.
    fn only_here(&mut self, path: &str, hook: &schema::Hook, terms: Terms) {
        let why = match terms.by {
            By::Start => "the pod runs it once a start; with `onFailure: block` the kubelet starts it again",
            By::Stop => "the pod runs it once, and then stops",
            By::Controller => "",
        };
        let keys = [
            ("retries", hook.retries.as_ref().map(|v| v.referenced)),
            ("backoff", hook.backoff.as_ref().map(|v| v.referenced)),
            ("idempotent", hook.idempotent.as_ref().map(|v| v.referenced)),
            ("when", hook.when.as_ref().map(|v| v.referenced)),
        ];
        for (key, location) in keys {
            let Some(location) = location.filter(|_| terms.by != By::Controller) else { continue };
            self.error(format!("{path}.{key}"), location, Problem::NotHere { key, hook: terms.name, why });
        }
        let Some(on_failure) = &hook.on_failure else { return };
        let (key, why) = match (on_failure.value, terms.by) {
            (schema::OnFailure::Continue, _)
            | (schema::OnFailure::Block, By::Start)
            | (schema::OnFailure::Recreate, By::Controller) => return,
            (schema::OnFailure::Block, By::Stop) => ("onFailure: block", "nothing can hold up a pod that stops"),
            (schema::OnFailure::Block, By::Controller) => ("onFailure: block", "it runs in a pod that has started"),
            (schema::OnFailure::Recreate, By::Start) => {
                ("onFailure: recreate", "the pod has not started; `block` makes the kubelet start it again")
            }
            (schema::OnFailure::Recreate, By::Stop) => ("onFailure: recreate", "the pod stops anyway"),
        };
        self.error(format!("{path}.onFailure"), on_failure.referenced, Problem::NotHere { key, hook: terms.name, why });
    }

    fn hook_target(&mut self, path: &str, text: &Spanned<String>, terms: Terms) -> Option<Target> {
        let target = self.target(path, text)?;
        let kind = match target {
            Target::Itself => Pods::Itself,
            Target::Any => Pods::Any,
            Target::All => Pods::All,
            Target::Ordinal(_) => Pods::Ordinal,
            Target::Role(_) => Pods::Role,
        };
        let possible = if terms.targets.is_empty() { &[Pods::Itself] } else { terms.targets };
        if !possible.contains(&kind) {
            let possible: Vec<&str> = possible.iter().map(|p| p.written()).collect();
            let (found, possible) = (text.value.clone(), possible.join(", "));
            self.error(path, text.referenced, Problem::Variant { found, expected: possible });
        }
        Some(target)
    }

    pub(super) fn probe(
        &mut self,
        path: &str,
        at: Location,
        (script, command): (Option<Spanned<String>>, Option<Spanned<Vec<String>>>),
        container: Option<Spanned<String>>,
        timeout: Option<Spanned<schema::Time>>,
    ) -> Probe {
        Probe {
            program: self.program(path, at, script, command),
            container: container.map(|c| self.label(format!("{path}.container"), c)),
            timeout: self.duration(format!("{path}.timeout"), timeout, DEFAULT_TIMEOUT, MAX_TIMEOUT),
        }
    }

    fn program(
        &mut self,
        path: &str,
        at: Location,
        script: Option<Spanned<String>>,
        command: Option<Spanned<Vec<String>>>,
    ) -> Program {
        let nothing = Program::Command(Vec::new());
        match (script, command) {
            (Some(script), None) => self.script(&format!("{path}.script"), script),
            (None, Some(command)) => {
                let problem = match &command.value {
                    argv if argv.first().is_none_or(String::is_empty) => Some(Problem::EmptyCommand),
                    argv if argv.iter().any(|a| a.contains('\0')) => Some(Problem::ZeroByte),
                    _ => None,
                };
                problem.into_iter().for_each(|p| self.error(format!("{path}.command"), command.referenced, p));
                Program::Command(command.value)
            }
            (Some(_), Some(command)) => {
                self.error(path, command.referenced, Problem::TwoPrograms);
                nothing
            }
            (None, None) => {
                self.error(path, at, Problem::NoProgram);
                nothing
            }
        }
    }

    fn script(&mut self, path: &str, script: Spanned<String>) -> Program {
        let name = script.value;
        let text = self.data.get(&name);
        let problem = match text {
            Some(_) if name == POLICY_KEY => Some(Problem::PolicyAsScript),
            None => {
                let others = self.data.keys().map(String::as_str).filter(|k| *k != POLICY_KEY);
                Some(Problem::NoSuchScript { script: name.clone(), nearest: yaml::nearest(&name, others) })
            }
            Some(text) if text.len() > MAX_SCRIPT_BYTES => Some(Problem::ScriptTooLarge { name: name.clone(), size: text.len() }),
            Some(text) => shebang(&name, text),
        };
        problem.into_iter().for_each(|p| self.error(path, script.referenced, p));
        Program::Script { text: text.cloned().unwrap_or_default(), name }
    }

    fn variable(&mut self, path: &str, name: String, value: Spanned<String>) -> (String, String) {
        let inner = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let problem = if name.is_empty() || !inner || name.starts_with(|c: char| c.is_ascii_digit()) {
            Some(Problem::NotAVariable(name.clone()))
        } else if name.starts_with("GUARDIAN_") {
            Some(Problem::ReservedVariable(name.clone()))
        } else if value.value.contains('\0') {
            Some(Problem::ZeroByte)
        } else {
            None
        };
        problem.into_iter().for_each(|p| self.error(format!("{path}.env"), value.referenced, p));
        (name, value.value)
    }

    /// What goes into a pod must fit into one environment string, packed as [`guardian_hook::protocol::Installed::encode`] packs it.
    pub(super) fn pod_hooks(&mut self, hooks: &Hooks) {
        let in_pod: Vec<_> = [&hooks.init, &hooks.pre_stop].into_iter().flatten().map(Hook::in_pod).collect();
        let json = serde_json::to_vec(&in_pod).map_or(0, |json| json.len());
        let (size, most) = (json.div_ceil(3) * 4, MAX_SPEC - SPEC_RESERVE);
        if size > most {
            let error = PolicyError::of_map(Problem::PodHooksTooLarge { size, most });
            self.errors.push(PolicyError { path: "hooks".to_owned(), ..error });
        }
    }
}

/// Why a task by the clock has no pod of its own.
const SCHEDULED: &str = "a time is about no pod; write `any`, `all`, `ordinal:N` or `role:NAME`";

impl Pods {
    fn written(self) -> &'static str {
        match self {
            Self::Itself => "self",
            Self::Any => "any",
            Self::All => "all",
            Self::Ordinal => "ordinal:N",
            Self::Role => "role:NAME",
        }
    }
}

fn shebang(name: &str, text: &str) -> Option<Problem> {
    let first = text.split('\n').next().unwrap_or_default();
    match first.strip_prefix("#!") {
        Some(line) if line.ends_with('\r') => Some(Problem::CarriageReturn(name.to_owned())),
        Some(line) if !line.trim().is_empty() => None,
        _ => Some(Problem::NoShebang(name.to_owned())),
    }
}
