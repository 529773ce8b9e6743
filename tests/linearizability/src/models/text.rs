//! A text: get, put, append. One entry of a map of strings.

use super::Model;

/// A text that is empty at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text;

/// What a text is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextInput {
    /// What is it?
    Get,
    /// Be this.
    Put(String),
    /// Have this at the end.
    Append(String),
}

/// What a text answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextOutput {
    /// To a get.
    Text(String),
    /// To a put and an append.
    Written,
}

impl Model for Text {
    type State = String;
    type Input = TextInput;
    type Output = TextOutput;

    fn initial(&self) -> String {
        String::new()
    }

    fn step(&self, state: &String, input: &TextInput, output: Option<&TextOutput>) -> Option<String> {
        let possible = match (input, output) {
            (_, None) | (TextInput::Put(_) | TextInput::Append(_), Some(TextOutput::Written)) => true,
            (TextInput::Get, Some(TextOutput::Text(text))) => text == state,
            _ => false,
        };
        possible.then(|| match input {
            TextInput::Get => state.clone(),
            TextInput::Put(text) => text.clone(),
            TextInput::Append(text) => format!("{state}{text}"),
        })
    }
}
