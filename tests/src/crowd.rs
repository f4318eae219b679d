//! Many su, or programs that ask like it, at once: all of them wait at their prompts before the first is answered, and each
//! ends with a verdict.

use crate::su::{KON, Su, Verdict};
use crate::{Error, Result};

/// Many attempts.
pub struct Crowd {
    all: Vec<Su>,
}

impl Crowd {
    /// Starts `count` su of kon's, to become jon, and waits until every one has prompted.
    ///
    /// # Errors
    /// When one cannot be started, or ends before it prompts.
    pub fn at_the_prompt(count: usize) -> Result<Self> {
        Self::of((0..count).map(|_| Su::start(KON, "jon")))
    }

    /// Waits until every one of these has prompted.
    ///
    /// # Errors
    /// When one could not be started, or ends before it prompts.
    pub fn of(all: impl Iterator<Item = Result<Su>>) -> Result<Self> {
        let mut all: Vec<Su> = all.collect::<Result<_>>()?;
        for su in &mut all {
            su.wait_prompt()?;
        }
        Ok(Self { all })
    }

    /// Answers all prompts.
    ///
    /// # Errors
    /// When one does not read.
    pub fn submit(&mut self, password: &str) -> Result<()> {
        self.all.iter_mut().try_for_each(|su| su.submit(password))
    }

    /// Answers all prompts, each with a password of its own.
    ///
    /// # Errors
    /// When one does not read.
    pub fn submit_each<'a>(&mut self, password: impl Fn(usize) -> &'a str) -> Result<()> {
        self.all.iter_mut().enumerate().try_for_each(|(n, su)| su.submit(password(n)))
    }

    /// How many have no verdict yet.
    ///
    /// # Errors
    /// When one cannot be asked.
    pub fn without_verdict(&mut self) -> Result<usize> {
        let mut running = 0;
        for su in &mut self.all {
            running += usize::from(su.running()?);
        }
        Ok(running)
    }

    /// Waits for every verdict; how many were let in.
    ///
    /// # Errors
    /// When one ends without a verdict.
    pub fn let_in(self) -> Result<usize> {
        Ok(self.verdicts()?.iter().filter(|verdict| verdict.let_in).count())
    }

    /// Waits for every verdict.
    ///
    /// # Errors
    /// When one ends without a verdict.
    pub fn verdicts(self) -> Result<Vec<Verdict>> {
        let verdict = |su: Su| {
            let verdict = su.verdict()?;
            if let Some(signal) = verdict.signal {
                let output = format!("killed by signal {signal}; {}", verdict.output);
                return Err(Error::Answer { program: "su".into(), output });
            }
            Ok(verdict)
        };
        self.all.into_iter().map(verdict).collect()
    }
}

/// `count` guesses at once, from the prompt to the verdict; how many were let in.
///
/// # Errors
/// As of the steps.
pub fn at_once(count: usize, password: &str) -> Result<usize> {
    let mut crowd = Crowd::at_the_prompt(count)?;
    crowd.submit(password)?;
    crowd.let_in()
}
