//! Manifests as people keep them: files, directories, standard input; several YAML documents in one text, or JSON.

mod place;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One document, with the text that it was read from.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// The file that it stands in.
    pub(super) file: String,
    /// Lines of the file before it.
    first_line: u64,
    /// The document as written, comments and all; without the `---` around it.
    pub(super) text: String,
    /// What it says.
    pub(super) value: Value,
}

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManifestError {
    #[error("{0}: cannot be read: {1}")]
    Unreadable(String, #[source] io::Error),
    #[error("{0}: holds no *.yaml, *.yml or *.json file")]
    EmptyDirectory(String),
    #[error("{file}:{line}:{column}: {problem}")]
    Syntax { file: String, line: u64, column: u64, problem: String },
}

/// Reads every document of a file, of a directory's manifests in the order of their names, or of standard input (`-`).
pub(super) fn read(path: &Path) -> Result<Vec<Document>, ManifestError> {
    if !path.is_dir() {
        return read_file(path);
    }
    let files: Vec<PathBuf> = entries(path)?.into_iter().filter(|p| is_manifest(p)).collect();
    if files.is_empty() {
        return Err(ManifestError::EmptyDirectory(path.display().to_string()));
    }
    let mut all = Vec::new();
    for file in files {
        all.extend(read_file(&file)?);
    }
    Ok(all)
}

/// The path itself, or all manifests below it, in the order of their names. Symbolic links to directories are not followed: they may go
/// in a circle.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder)? {
            if entry.is_dir() && !entry.is_symlink() {
                folders.push(entry);
            } else if is_manifest(&entry) {
                files.push(entry);
            }
        }
    }
    files.sort();
    if files.is_empty() { Err(ManifestError::EmptyDirectory(path.display().to_string())) } else { Ok(files) }
}

/// Reads every document of one file, or of standard input (`-`).
pub(super) fn read_file(path: &Path) -> Result<Vec<Document>, ManifestError> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(|e| ManifestError::Unreadable("standard input".to_owned(), e))?;
        return documents("standard input", &text);
    }
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|e| ManifestError::Unreadable(name.clone(), e))?;
    documents(&name, &text)
}

/// What is in a directory, in the order of the names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let unreadable = |e| ManifestError::Unreadable(folder.display().to_string(), e);
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>().map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

fn is_manifest(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}

/// Splits at the document markers, so that each document keeps its own text.
fn documents(file: &str, text: &str) -> Result<Vec<Document>, ManifestError> {
    let mut documents = Vec::new();
    let mut first_line = 0;
    let mut lines: Vec<&str> = Vec::new();
    for (number, line) in text.lines().chain(["---"]).enumerate() {
        if line != "---" && !line.starts_with("--- ") {
            lines.push(line);
            continue;
        }
        let text = lines.join("\n");
        if let Some(value) = parse(file, first_line, &text)? {
            documents.push(Document { file: file.to_owned(), first_line, text, value });
        }
        lines.clear();
        first_line = number as u64 + 1;
    }
    Ok(documents)
}

/// `None` for a document of nothing but comments.
fn parse(file: &str, first_line: u64, text: &str) -> Result<Option<Value>, ManifestError> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(None);
    }
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let value: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        // The parser's own words for the place count from the start of the document, not of the file.
        let problem = error.to_string();
        let problem = problem.split(" at line ").next().unwrap_or(&problem).to_owned();
        ManifestError::Syntax { file: file.to_owned(), line: first_line + line, column, problem }
    })?;
    Ok((!value.is_null()).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_text_and_comments_alone_are_none() {
        let text = "# a file\n---\na: 1 # one\n---\n\n---\nb: on\n";
        let read = documents("f", text).expect("is YAML");
        let texts: Vec<&str> = read.iter().map(|d| d.text.as_str()).collect();
        assert_eq!(texts, ["a: 1 # one", "b: on"]);
        assert_eq!(read[1].value["b"], Value::String("on".to_owned()), "a YAML 1.1 boolean is a string to Kubernetes");
    }

    #[test]
    fn an_error_names_the_line_of_the_file_not_of_the_document() {
        let error = documents("f.yaml", "a: 1\n---\nb: [1,\nc: 2\n").expect_err("is not YAML");
        assert_eq!(error.to_string(), "f.yaml:3:4: unclosed bracket '['");
    }
}
