//! Monitor and enforce, switched at run time.
//!
//! Invariants: the file is not touched; what was switched holds over reloads and restarts of the agent, until the next
//! reboot or until it is given back to the file; all or nothing, as a reload.

use std::collections::BTreeMap;

use portcullis_policy::Input;

use super::command::CommandError;
use super::{Engine, EngineError};
use crate::api::view::{Done, ModeRequest};
use crate::config::{Config, Mode};

/// The name of all classes in [`crate::store::Store::modes`].
pub(super) const ALL: &str = "*";

/// The configuration with the modes that were set at run time: of all first, then of single classes.
pub(super) fn with_modes(file: &Config, modes: &BTreeMap<String, bool>) -> Config {
    let mut config = file.clone();
    let mode = |monitor: bool| if monitor { Mode::Monitor } else { Mode::Enforce };
    if let Some(all) = modes.get(ALL).copied() {
        config.default.mode = mode(all);
        config.classes.iter_mut().for_each(|class| class.limits.mode = mode(all));
        (config.root.limits.mode, config.break_glass_limits.mode) = (mode(all), mode(all));
    }
    if let Some(default) = modes.get("default").copied() {
        // root and break-glass go with it, but where the file gives them modes of their own.
        for own in [&mut config.root.limits, &mut config.break_glass_limits] {
            if own.mode == config.default.mode {
                own.mode = mode(default);
            }
        }
        config.default.mode = mode(default);
    }
    if let Some(root) = modes.get("root").copied() {
        config.root.limits.mode = mode(root);
    }
    for class in &mut config.classes {
        if let Some(own) = modes.get(&class.name).copied() {
            class.limits.mode = mode(own);
        }
    }
    config
}

impl Engine {
    /// Switches the mode of a class or of all.
    pub(super) fn set_mode(
        &mut self,
        asked: &ModeRequest,
    ) -> Result<Result<Done, CommandError>, EngineError> {
        let class = asked.class.as_deref().unwrap_or(ALL);
        let known = class == ALL
            || class == "default"
            || class == "root"
            || self.file.classes.iter().any(|known| known.name == class);
        if !known {
            let class = crate::text::escape(class.as_bytes());
            return Ok(Err(CommandError::Config(format!(
                "no class is named {class}: name one of the configuration, or default"
            ))));
        }
        let mut modes = self.store.modes().clone();
        let word = match asked.mode.as_str() {
            "monitor" => Some(true),
            "enforce" => Some(false),
            "file" => None,
            other => {
                let other = crate::text::escape(other.as_bytes());
                return Ok(Err(CommandError::Config(format!("no mode is named {other}"))));
            }
        };
        if class == ALL {
            modes.clear();
        }
        match word {
            Some(monitor) => modes.insert(class.to_owned(), monitor),
            None => modes.remove(class),
        };
        let config = with_modes(&self.file, &modes);
        if let Err(error) = self.adopt(config) {
            return Ok(Err(CommandError::Failed(error.to_string())));
        }
        self.store.set_modes(modes);
        self.tell_classes()?;
        let whose = if class == ALL { "every class".to_owned() } else { format!("the class {class}") };
        let message = match word {
            Some(_) => {
                format!("{whose} is in mode {} until the next reboot, or portcullis mode file", asked.mode)
            }
            None => format!("{whose} is in the mode that the configuration says"),
        };
        log::warn!("{message}");
        Ok(Ok(Done { row: None, message, problems: Vec::new() }))
    }

    /// Tells the policy the classes of the accounts it holds.
    pub(super) fn tell_classes(&mut self) -> Result<(), EngineError> {
        let mut classes = Vec::new();
        for uid in self.policy.accounts().collect::<Vec<_>>() {
            classes.push((uid, self.policy_class(uid)?));
        }
        self.step(Input::ConfigChanged { classes })
    }

    /// The modes in effect, in words: one for each class that was switched, or that is in monitor mode.
    pub(super) fn modes_shown(&self) -> Vec<String> {
        let switched = |name: &str| {
            let modes = self.store.modes();
            if modes.contains_key(name) || modes.contains_key(ALL) { " (set at run time)" } else { "" }
        };
        let classes = std::iter::once(("default", self.config.default.mode))
            .chain([("root", self.config.root.limits.mode)])
            .chain(self.config.classes.iter().map(|class| (class.name.as_str(), class.limits.mode)));
        let shown = |(name, mode): (&str, Mode)| {
            let note = switched(name);
            let word = if mode == Mode::Monitor { "MONITOR, nothing is refused" } else { "enforce" };
            (mode == Mode::Monitor || !note.is_empty()).then(|| format!("{name}: {word}{note}"))
        };
        classes.filter_map(shown).collect()
    }
}
