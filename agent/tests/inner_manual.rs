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
    assert!(keys.len() > 10 && tables.len() == 5, "{config}");
    let page = page("portcullis.toml.5");
    let on_page: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix(".It Ic ")).collect();
    assert_eq!(on_page, keys);
    let on_page: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix(".Ss ")).collect();
    assert_eq!(on_page, tables);
}

#[test]
fn the_modules_words_are_on_its_page() {
    let page = page("pam_portcullis.8");
    let on_page: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .map(|line| line.split(|letter| "= ".contains(letter)).next().unwrap())
        .collect();
    let documented = include_str!("../../docs/pam.md");
    let wanted: BTreeSet<&str> = documented
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .filter(|word| *word == "silent" || word.ends_with('='))
        .map(|word| word.trim_end_matches('='))
        .collect();
    assert!(wanted.len() >= 4, "{wanted:?}");
    assert_eq!(on_page, wanted);
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
