//! The man pages against the programs: every command, option and key is on its page, and nothing else is.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::CommandFactory;
use portcullis_agent::config::{Host, parse_on};
use portcullis_agent::{cli, daemon};

fn page(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/man")
}

/// Commands with their options, `config check` or `lock --for`, and the options of all, as clap has them.
fn tree(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
    for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
        if option.is_global_set() && !path.is_empty() {
            continue;
        }
        if let Some(long) = option.get_long().filter(|long| !["help", "version"].contains(long)) {
            found.insert(format!("{path} --{long}").trim_start().to_owned());
        }
        if option.is_positional() && !path.is_empty() {
            found.insert(format!("{path} {}", option.get_value_names().unwrap().first().unwrap()));
        }
    }
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
    {
        let path = format!("{path} {}", inner.get_name()).trim_start().to_owned();
        if inner.get_subcommands().next().is_none() {
            found.insert(path.clone());
        }
        tree(inner, &path, found);
    }
}

/// The same, off the page: items `.It Cm COMMAND`, in them `Fl -OPTION` and the first `Ar` that is not an option's.
fn items(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in page.lines() {
        let Some(item) = line.strip_prefix(".It ") else { continue };
        let words: Vec<&str> =
            item.split_whitespace().filter(|word| !["Op", "Ns", ","].contains(word)).collect();
        let mut path = Vec::new();
        let mut kind = "";
        let mut option = false;
        for word in words {
            match word {
                "Cm" | "Fl" | "Ar" => kind = word,
                _ if kind == "Cm" => {
                    path.push(word);
                    option = false;
                }
                _ if kind == "Fl" => {
                    option = true;
                    if let Some(long) =
                        word.strip_prefix('-').filter(|long| !["help", "version"].contains(long))
                    {
                        found.insert(format!("{} --{long}", path.join(" ")).trim_start().to_owned());
                    }
                }
                _ if kind == "Ar" => {
                    if !option {
                        found.insert(format!("{} {word}", path.join(" ")));
                    }
                    option = false;
                }
                _ => {}
            }
        }
        if !path.is_empty() {
            found.insert(path.join(" "));
        }
    }
    found
}

fn assert_covered(command: &mut clap::Command, name: &str) {
    command.build();
    let mut wanted = BTreeSet::new();
    tree(command, "", &mut wanted);
    assert!(wanted.len() >= 5, "{wanted:?}");
    assert_eq!(items(&page(name)), wanted, "left: {name}, right: the program");
}

#[test]
fn every_command_and_option_is_on_its_page() {
    assert_covered(&mut cli::Arguments::command(), "portcullis.1");
    assert_covered(&mut daemon::Arguments::command(), "portcullisd.8");
}

#[test]
fn every_exit_status_is_on_its_page() {
    let page = page("portcullis.1");
    for line in portcullis_agent::exit::TABLE.lines().skip(1) {
        let number = line.split_whitespace().next().unwrap();
        assert!(page.lines().any(|line| line == format!(".It {number}")), "{number}");
    }
}

#[test]
fn every_key_is_on_its_page() {
    let text = "break_glass = false\n[[class]]\nname = \"a\"\nusers = [\"root\"]\n";
    let config = parse_on(Path::new("p.toml"), text, &Host::this()).unwrap().config.to_toml().unwrap();
    let keys: BTreeSet<&str> = config.lines().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    let tables: BTreeSet<&str> = config.lines().filter(|line| line.starts_with('[')).collect();
    assert!(keys.len() > 10 && tables.len() == 11, "{config}");
    let page = page("portcullis.toml.5");
    let on_page: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix(".It Ic ")).collect();
    assert_eq!(on_page, keys);
    let on_page: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix(".Ss ")).collect();
    assert_eq!(on_page, tables);
}

/// The lines for the stacks, as `auth requisite [wait=SECONDS] …`, off a text's synopsis.
fn lines(text: impl Iterator<Item = String>) -> Vec<String> {
    let all = text.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    all.filter(|line| line.contains(" pam_portcullis.so [")).collect()
}

#[test]
fn the_modules_lines_and_words_are_on_its_page() {
    let page = page("pam_portcullis.8");
    let (synopsis, rest) = page.split_once(".Sh DESCRIPTION").unwrap();
    let plain = |text: &str| text.replace(" Ns ", "").replace("Ar ", "").replace(" | ", "|");
    let mut shown = String::new();
    for line in synopsis.lines() {
        if let Some(start) = line.strip_prefix(".Nm ").filter(|start| start.contains(".so")) {
            shown.push_str(&format!("\n{start}"));
        } else if let Some(word) = line.strip_prefix(".Op Cm ") {
            shown.push_str(&format!(" [{}]", plain(word)));
        }
    }
    let documented = include_str!("../../docs/pam.md");
    let wanted = lines(documented.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned));
    assert!(wanted.len() >= 3, "{wanted:?}");
    assert_eq!(lines(shown.lines().map(str::to_owned)), wanted, "left: the page, right: docs/pam.md");
    let of_line = |line: &str| {
        line.split('[').skip(1).map(|word| word.trim_end_matches([' ', ']']).to_owned()).collect::<Vec<_>>()
    };
    let words: BTreeSet<String> = wanted.iter().flat_map(|line| of_line(line)).collect();
    let told: BTreeSet<String> =
        rest.lines().filter_map(|line| line.strip_prefix(".It Cm ")).map(plain).collect();
    assert_eq!(told, words);
}

/// Runs a checker over all pages; none where it is not installed.
fn check(program: &str, arguments: &[&str]) -> Option<String> {
    let mut said = String::new();
    for entry in folder().read_dir().unwrap() {
        let mut command = Command::new(program);
        command.args(arguments).arg(entry.unwrap().path()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        let output = command.output().ok()?;
        said += &String::from_utf8_lossy(&output.stderr);
        if program == "mandoc" {
            said += &String::from_utf8_lossy(&output.stdout);
        }
    }
    Some(said)
}

#[test]
fn the_pages_are_well_formed() {
    let checks = [
        check("mandoc", &["-Tlint", "-W", "warning"]),
        check("man", &["--warnings", "-E", "UTF-8", "-Tutf8", "-Z", "-l"]),
    ];
    if checks.iter().all(Option::is_none) {
        eprintln!("skipped: needs mandoc or man");
    }
    for said in checks.into_iter().flatten() {
        assert_eq!(said, "");
    }
}

#[test]
fn completions_know_every_command() {
    for (shell, word) in
        [("bash", "complete "), ("zsh", "#compdef portcullis"), ("fish", "complete -c portcullis")]
    {
        let output =
            Command::new(env!("CARGO_BIN_EXE_portcullis")).args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains(word), "{shell}: {script}");
        for command in ["status", "explain", "follow", "reload"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}
