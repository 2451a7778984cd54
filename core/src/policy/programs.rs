//! Everything that a policy may run, for people who are asked whether it may.

use super::{Freeze, Hook, Hooks, Policy, Position, Program};

impl Policy {
    /// Every program of the policy under the path of its place, such as `hooks.rejoin` or `tasks.nightly`.
    #[must_use]
    pub fn programs(&self) -> Vec<(String, &Program)> {
        let role = self.role.iter().map(|role| ("role".to_owned(), &role.probe.program));
        let metrics = self.metrics.iter().map(|metric| (format!("metrics.{}", metric.name), &metric.probe.program));
        let tasks = self.tasks.iter().map(|(name, task)| (format!("tasks.{name}"), &task.hook.program));
        let drain = self.traffic.iter().filter_map(|traffic| traffic.drain.as_ref());
        let drain = drain.map(|hook| ("traffic.drain".to_owned(), &hook.program));
        self.hooks.programs().into_iter().chain(role).chain(metrics).chain(tasks).chain(drain).collect()
    }
}

impl Hooks {
    fn programs(&self) -> Vec<(String, &Program)> {
        // No `..`: a hook that is added must be listed.
        let Self {
            init,
            position,
            restart,
            bootstrap,
            join,
            rejoin,
            pre_stop,
            leave,
            switchover,
            before_update,
            after_update,
            shutdown,
            post_mortem,
            freeze,
            thaw,
            fence,
        } = self;
        let alive = position.as_ref().and_then(|Position { alive, .. }| alive.as_ref());
        let position = position.as_ref().map(|Position { hook, .. }| hook);
        let freeze = freeze.as_ref().map(|Freeze { hook, .. }| hook);
        let all = [
            ("init", program(init.as_ref())),
            ("position", program(position)),
            ("position.alive", alive.map(|probe| &probe.program)),
            ("restart", program(restart.as_ref())),
            ("bootstrap", program(bootstrap.as_ref())),
            ("join", program(join.as_ref())),
            ("rejoin", program(rejoin.as_ref())),
            ("preStop", program(pre_stop.as_ref())),
            ("leave", program(leave.as_ref())),
            ("switchover", program(switchover.as_ref())),
            ("beforeUpdate", program(before_update.as_ref())),
            ("afterUpdate", program(after_update.as_ref())),
            ("shutdown", program(shutdown.as_ref())),
            ("postMortem", program(post_mortem.as_ref())),
            ("freeze", program(freeze)),
            ("thaw", program(thaw.as_ref())),
            ("fence", program(fence.as_ref())),
        ];
        all.into_iter().filter_map(|(name, program)| Some((format!("hooks.{name}"), program?))).collect()
    }
}

fn program(hook: Option<&Hook>) -> Option<&Program> {
    hook.map(|hook| &hook.program)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::names::POLICY_KEY;
    use crate::policy::parse;

    /// Each program is a command of its own path.
    const TEXT: &str = "apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
hooks:
  init: {command: [hooks.init]}
  position: {command: [hooks.position], alive: {command: [hooks.position.alive]}}
  restart: {command: [hooks.restart]}
  bootstrap: {command: [hooks.bootstrap]}
  join: {command: [hooks.join]}
  rejoin: {command: [hooks.rejoin]}
  preStop: {command: [hooks.preStop]}
  leave: {command: [hooks.leave]}
  switchover: {command: [hooks.switchover], target: 'role:primary'}
  beforeUpdate: {command: [hooks.beforeUpdate]}
  afterUpdate: {command: [hooks.afterUpdate]}
  shutdown: {command: [hooks.shutdown]}
  postMortem: {command: [hooks.postMortem]}
  freeze: {command: [hooks.freeze]}
  thaw: {command: [hooks.thaw]}
  fence: {command: [hooks.fence]}
role: {command: [role], every: 5s}
metrics: [{name: a_b, type: gauge, help: x, every: 15s, command: [metrics.a_b]}]
tasks: {nightly: {command: [tasks.nightly]}}
traffic: {services: [redis], drain: {command: [traffic.drain]}}
";

    #[test]
    fn whoever_is_asked_is_shown_every_program() {
        let policy = parse("redis", &BTreeMap::from([(POLICY_KEY.to_owned(), TEXT.to_owned())]));
        let policy = policy.unwrap_or_else(|invalid| panic!("{invalid}"));
        let shown = policy.programs();
        for (path, program) in &shown {
            assert_eq!(**program, Program::Command(vec![path.clone()]));
        }
        assert_eq!(shown.len(), TEXT.matches("command: [").count());
    }
}
