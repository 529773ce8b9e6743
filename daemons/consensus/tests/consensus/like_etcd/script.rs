//! The script as data: `script.txt`, one command a line. How a line reads stands at its beginning.

use std::time::Duration;

/// A line of the script.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) text: &'static str,
    /// What of the outputs is not compared.
    pub(crate) masks: Vec<&'static str>,
    /// Why the outputs cannot be equal.
    pub(crate) differs: Option<&'static str>,
    /// Lines after which a command that would go on is interrupted.
    pub(crate) lines: Option<usize>,
    /// The lease that it grants gets this name.
    pub(crate) lease: Option<&'static str>,
    pub(crate) action: Action,
}

#[derive(Debug)]
pub(crate) enum Action {
    /// A command of etcdctl, at these endpoints, with what is its input.
    Run(Command),
    /// The same, beside those that follow.
    Start(&'static str, Command),
    /// The end of that one.
    End(&'static str),
    /// A member is killed.
    Kill(usize),
    /// A member is started: again, or one that was added.
    Member(usize),
    /// As long as a member needs to see what became of the others.
    Sleep(Duration),
}

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) at: &'static str,
    pub(crate) args: Vec<String>,
    pub(crate) input: Vec<u8>,
}

pub(crate) fn lines(script: &'static str) -> impl Iterator<Item = Line> {
    let lines = script.lines().enumerate();
    let commands = lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#'));
    commands.map(|(n, text)| line(n + 1, text))
}

fn line(number: usize, text: &'static str) -> Line {
    let (options, rest) = text.split_once(' ').unwrap_or_else(|| panic!("line {number}: {text}"));
    let (at, command) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
    let mut line = Line {
        number,
        text,
        masks: Vec::new(),
        differs: None,
        lines: None,
        lease: None,
        action: action(at, command.trim_start()),
    };
    for option in options.split(',').filter(|option| *option != "-") {
        match option.split_once('=') {
            None => line.masks.push(option),
            Some(("differs", why)) => line.differs = Some(why),
            Some(("lines", n)) => line.lines = Some(n.parse().unwrap()),
            Some(("lease", name)) => line.lease = Some(name),
            Some(("start", name)) => {
                let Action::Run(command) = line.action else { panic!("line {number}: no command") };
                line.action = Action::Start(name, command);
            }
            Some(_) => panic!("line {number}: {option}"),
        }
    }
    line
}

fn action(at: &'static str, command: &'static str) -> Action {
    match at {
        "end" => Action::End(command),
        "kill" => Action::Kill(command.parse().unwrap()),
        "member" => Action::Member(command.parse().unwrap()),
        "sleep" => Action::Sleep(Duration::from_secs(command.parse().unwrap())),
        at => {
            let (args, input) = command.split_once(" << ").unwrap_or((command, ""));
            Action::Run(Command { at, args: split(args), input: input_of(input) })
        }
    }
}

/// Words, some in single quotes.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for letter in text.chars() {
        match letter {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

fn input_of(text: &str) -> Vec<u8> {
    match text.split_once(' ') {
        Some(("BYTES", count)) => vec![b'x'; count.parse().unwrap()],
        Some(("PUTS", count)) => {
            let puts: String =
                (0..count.parse::<u32>().unwrap()).map(|n| format!("put many{n} x\n")).collect();
            format!("\n{puts}\n\n").into_bytes()
        }
        _ => text.replace("\\n", "\n").into_bytes(),
    }
}
