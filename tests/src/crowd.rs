//! Many su at once: all of them wait at their prompts before the first is answered, and each ends with a verdict.

use crate::su::{KON, Su};
use crate::{Error, Result};

/// Many su of kon's, to become jon.
pub struct Crowd {
    all: Vec<Su>,
}

impl Crowd {
    /// Starts `count` of them and waits until every one has prompted.
    ///
    /// # Errors
    /// When one cannot be started, or ends before it prompts.
    pub fn at_the_prompt(count: usize) -> Result<Self> {
        let mut all: Vec<Su> = (0..count).map(|_| Su::start(KON, "jon")).collect::<Result<_>>()?;
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
        let mut let_in = 0;
        for su in self.all {
            let verdict = su.verdict()?;
            if let Some(signal) = verdict.signal {
                let output = format!("killed by signal {signal}; {}", verdict.output);
                return Err(Error::Answer { program: "su".into(), output });
            }
            let_in += usize::from(verdict.let_in);
        }
        Ok(let_in)
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
