//! A Chromium, driven by the WebDriver protocol, in a profile of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http;

/// Nothing that is waited for in a page takes so long. Milliseconds.
const PATIENCE: u32 = 30_000;

/// A browser may take so long to end.
const LAST: Duration = Duration::from_secs(10);

/// A browser with one window.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    _profile: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser, also of a test that has failed; nobody asks whether it did.
        let (own, path) = http::parts(&self.session);
        if let Ok(mut stream) = TcpStream::connect(own) {
            let _ = write!(stream, "DELETE {path} HTTP/1.1\r\nHost: {own}\r\n\r\n");
            let _ = stream.set_read_timeout(Some(LAST)).and_then(|()| stream.read(&mut [0]));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        let driver = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut driver = driver.expect("chromedriver runs: `make browser` installs it");
        let mut lines = BufReader::new(driver.stdout.take().expect("a pipe")).lines();
        let port = lines.find_map(|line| {
            let line = line.expect("a line");
            Some(line.split("successfully on port ").nth(1)?.trim_end_matches('.').to_owned())
        });
        let server = format!("http://127.0.0.1:{}", port.expect("chromedriver tells its port"));
        // What it says from now on is read by nobody; a pipe that is full would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let own = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--hide-scrollbars",
            "--window-size=1280,900",
            &own,
        ];
        let wanted = json!({
            "capabilities": {"alwaysMatch": {
                "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}, "timeouts": {"script": PATIENCE},
            }},
        });
        let made = http::send("POST", &format!("{server}/session"), None, &wanted.to_string());
        assert_eq!(made.status, 200, "{}", made.body);
        let made: Value = serde_json::from_str(&made.body).expect("JSON");
        let session = format!("{server}/session/{}", made["value"]["sessionId"].as_str().expect("a session"));
        Self { driver, session, _profile: profile }
    }

    /// Goes to a page; it has been loaded.
    pub(crate) fn go(&self, address: &str) {
        self.ask("url", &json!({"url": address}));
    }

    /// The value of an expression.
    pub(crate) fn value(&self, expression: &str) -> Value {
        self.ask("execute/sync", &json!({"script": format!("return {expression}"), "args": []}))
    }

    /// Waits until an expression is true, looking at every change of the page.
    pub(crate) fn until(&self, expression: &str) {
        let script = format!(
            "const done = arguments[0]; \
             const look = () => {{ if ({expression}) {{ changes.disconnect(); done(true); }} }}; \
             const changes = new MutationObserver(look); \
             changes.observe(document, {{subtree: true, childList: true, characterData: true, attributes: true}}); look();"
        );
        self.ask("execute/async", &json!({"script": script, "args": []}));
    }

    /// Presses a key so many times.
    pub(crate) fn press(&self, key: char, times: usize) {
        let stroke = [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        let strokes: Vec<Value> = (0..times).flat_map(|_| stroke.clone()).collect();
        self.ask("actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]}));
    }

    /// A command of the developer tools.
    pub(crate) fn tools(&self, command: &str, parameters: &Value) -> Value {
        self.ask("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// What was said on the console since the last time.
    pub(crate) fn console(&self) -> Vec<String> {
        let entries = self.ask("se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().expect("entries");
        entries.iter().map(|entry| format!("{} {}", entry["level"].as_str().unwrap_or_default(), entry["message"])).collect()
    }

    fn ask(&self, what: &str, parameters: &Value) -> Value {
        let answer = http::send("POST", &format!("{}/{what}", self.session), None, &parameters.to_string());
        assert_eq!(answer.status, 200, "{what} {parameters}: {}", answer.body);
        serde_json::from_str::<Value>(&answer.body).expect("JSON")["value"].take()
    }
}
