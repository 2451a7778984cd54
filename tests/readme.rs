//! The README's commands do what it says.

use std::path::Path;
use std::process::Command;

/// Every `console` block that runs this binary by `cargo run -q --`, with the output that the page shows.
fn shown(page: &str) -> Vec<(String, String)> {
    let blocks = page.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks
        .filter_map(|block| {
            let (command, output) = block.split_once('\n')?;
            let arguments = command.strip_prefix("$ cargo run -q -- ")?;
            Some((arguments.to_owned(), output.to_owned()))
        })
        .collect()
}

#[test]
fn the_readme_shows_what_its_commands_print() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("README.md")).expect("README.md");
    let commands = shown(&page);
    assert!(!commands.is_empty(), "the page shows at least one command of ours");
    for (arguments, expected) in commands {
        let run = Command::new(env!("CARGO_BIN_EXE_guardian"))
            .args(arguments.split_whitespace())
            .current_dir(root)
            .env_remove("GUARDIAN_IMAGE")
            .output()
            .expect("the binary runs");
        let printed = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{arguments}: {}", String::from_utf8_lossy(&run.stderr));
        assert_eq!(printed, expected, "`{arguments}` prints something else than the README shows");
    }
}

#[test]
fn the_policy_in_the_readme_is_the_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("README.md")).expect("README.md");
    let example = std::fs::read_to_string(root.join("examples/redis/policy.yaml")).expect("the example");
    let shown = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a yaml block");
    let indented: String = shown.lines().map(|line| format!("    {line}\n")).collect();
    assert!(example.contains(&indented), "examples/redis/policy.yaml does not hold the policy that the README shows");
}
