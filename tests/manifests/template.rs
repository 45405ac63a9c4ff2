//! Helm's templates as far as the chart goes: Go's text/template with its trimming, `if` and pipelines, and the handful of functions
//! that are used. Anything else is an error, so that a template cannot mean more here than it does there, or less.

use std::collections::VecDeque;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

/// A template, read.
#[derive(Debug)]
pub(crate) struct Template(Vec<Node>);

/// What a template is rendered with: `.Values`, `.Release`, `.Chart`, and the files that `.Files.Get` finds.
pub(crate) struct Input<'a> {
    pub(crate) root: &'a Value,
    pub(crate) file: &'a dyn Fn(&str) -> anyhow::Result<String>,
}

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
}

/// Calls, each of which has the result of the one before as its last argument.
type Pipeline = Vec<Vec<Term>>;

#[derive(Clone, Debug, PartialEq)]
enum Term {
    /// `.Values.image.tag`
    Field(Vec<String>),
    Literal(Value),
    Function(String),
    Nested(Pipeline),
}

/// Text, or what stands between `{{` and `}}`.
enum Piece<'t> {
    Text(&'t str),
    Action(&'t str),
}

#[derive(Debug, PartialEq)]
enum Token {
    Term(Term),
    Pipe,
    Open,
    Close,
}

impl Template {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut pieces = pieces(text)?;
        let nodes = block(&mut pieces)?;
        ensure!(pieces.is_empty(), "an `end` or `else` too many");
        Ok(Self(nodes))
    }

    pub(crate) fn render(&self, input: &Input<'_>) -> anyhow::Result<String> {
        let mut output = String::new();
        render(&self.0, input, &mut output)?;
        Ok(output)
    }
}

// === Reading ===

fn pieces(mut text: &str) -> anyhow::Result<VecDeque<Piece<'_>>> {
    let mut pieces = VecDeque::new();
    while let Some((before, rest)) = text.split_once("{{") {
        let (action, after) = rest.split_once("}}").context("`{{` without `}}`")?;
        let (trim_before, action) = action.strip_prefix("- ").map_or((false, action), |action| (true, action));
        let (trim_after, action) = action.strip_suffix(" -").map_or((false, action), |action| (true, action));
        pieces.push_back(Piece::Text(if trim_before { before.trim_end() } else { before }));
        pieces.push_back(Piece::Action(action.trim()));
        text = if trim_after { after.trim_start() } else { after };
    }
    pieces.push_back(Piece::Text(text));
    Ok(pieces)
}

/// Up to the `end` or `else` that belongs to the block, or to the end of the text.
fn block(pieces: &mut VecDeque<Piece<'_>>) -> anyhow::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.front() {
        match *piece {
            Piece::Action("end" | "else") => break,
            Piece::Text(text) => nodes.push(Node::Text(text.to_owned())),
            Piece::Action(action) if action.starts_with("if ") => {
                pieces.pop_front();
                nodes.push(conditional(action, pieces).with_context(|| format!("{{{{ {action} }}}}"))?);
                continue;
            }
            Piece::Action(action) => {
                nodes.push(Node::Print(pipeline(action).with_context(|| format!("{{{{ {action} }}}}"))?));
            }
        }
        pieces.pop_front();
    }
    Ok(nodes)
}

fn conditional(action: &str, pieces: &mut VecDeque<Piece<'_>>) -> anyhow::Result<Node> {
    let condition = pipeline(action.trim_start_matches("if "))?;
    let then = block(pieces)?;
    let mut otherwise = Vec::new();
    if matches!(pieces.front(), Some(Piece::Action("else"))) {
        pieces.pop_front();
        otherwise = block(pieces)?;
    }
    ensure!(matches!(pieces.pop_front(), Some(Piece::Action("end"))), "`if` without `end`");
    Ok(Node::If { condition, then, otherwise })
}

fn pipeline(text: &str) -> anyhow::Result<Pipeline> {
    let mut tokens = tokens(text)?.into();
    let pipeline = calls(&mut tokens)?;
    ensure!(tokens.is_empty(), "a `)` too many");
    Ok(pipeline)
}

fn calls(tokens: &mut VecDeque<Token>) -> anyhow::Result<Pipeline> {
    let mut calls = vec![Vec::new()];
    while let Some(token) = tokens.front() {
        if *token == Token::Close {
            break;
        }
        match tokens.pop_front() {
            Some(Token::Pipe) => calls.push(Vec::new()),
            Some(Token::Open) => {
                let nested = self::calls(tokens)?;
                ensure!(tokens.pop_front() == Some(Token::Close), "`(` without `)`");
                calls.last_mut().context("there is a call")?.push(Term::Nested(nested));
            }
            Some(Token::Term(term)) => calls.last_mut().context("there is a call")?.push(term),
            Some(Token::Close) | None => {}
        }
    }
    ensure!(calls.iter().all(|call| !call.is_empty()), "an empty call");
    Ok(calls)
}

fn tokens(text: &str) -> anyhow::Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '|' | '(' | ')' => 1,
            '"' => 2 + rest[1..].find('"').context("a string without end")?,
            _ => rest.find(|c: char| c.is_whitespace() || "|()".contains(c)).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(length);
        tokens.push(match word {
            "|" => Token::Pipe,
            "(" => Token::Open,
            ")" => Token::Close,
            "true" | "false" => Token::Term(Term::Literal(json!(word == "true"))),
            _ if first == '"' => Token::Term(Term::Literal(json!(word.trim_matches('"')))),
            _ if first == '.' => Token::Term(Term::Field(word[1..].split('.').map(str::to_owned).collect())),
            _ if first.is_ascii_digit() => Token::Term(Term::Literal(json!(word.parse::<u64>()?))),
            _ => Token::Term(Term::Function(word.to_owned())),
        });
        rest = after.trim_start();
    }
    Ok(tokens)
}

// === Rendering ===

fn render(nodes: &[Node], input: &Input<'_>, output: &mut String) -> anyhow::Result<()> {
    for node in nodes {
        match node {
            Node::Text(text) => output.push_str(text),
            Node::Print(pipeline) => output.push_str(&printed(&input.evaluate(pipeline)?)?),
            Node::If { condition, then, otherwise } => {
                let branch = if is_true(&input.evaluate(condition)?) { then } else { otherwise };
                render(branch, input, output)?;
            }
        }
    }
    Ok(())
}

impl Input<'_> {
    fn evaluate(&self, pipeline: &Pipeline) -> anyhow::Result<Value> {
        let mut last = None;
        for call in pipeline {
            last = Some(self.call(call, last.take()).with_context(|| format!("{call:?}"))?);
        }
        last.context("an empty pipeline")
    }

    fn call(&self, call: &[Term], last: Option<Value>) -> anyhow::Result<Value> {
        let (head, rest) = call.split_first().context("an empty call")?;
        let mut arguments = rest.iter().map(|term| self.term(term)).collect::<anyhow::Result<Vec<_>>>()?;
        arguments.extend(last);
        match head {
            Term::Function(name) => function(name, &arguments),
            Term::Field(path) if path == &["Files", "Get"] => match &arguments[..] {
                [Value::String(name)] => Ok(json!((self.file)(name)?)),
                _ => bail!(".Files.Get takes a name"),
            },
            _ if arguments.is_empty() => self.term(head),
            _ => bail!("not a function"),
        }
    }

    fn term(&self, term: &Term) -> anyhow::Result<Value> {
        match term {
            Term::Literal(value) => Ok(value.clone()),
            Term::Nested(pipeline) => self.evaluate(pipeline),
            Term::Function(name) => bail!("{name} takes arguments, and has none here"),
            // As in Go: what a map lacks is nil, and so is what nil lacks.
            Term::Field(path) => Ok(path.iter().fold(self.root, |value, name| &value[name.as_str()]).clone()),
        }
    }
}

fn function(name: &str, arguments: &[Value]) -> anyhow::Result<Value> {
    Ok(match (name, arguments) {
        ("not", [value]) => json!(!is_true(value)),
        ("or", [.., last]) => arguments.iter().find(|value| is_true(value)).unwrap_or(last).clone(),
        ("default", [default, value]) => if is_true(value) { value } else { default }.clone(),
        ("toYaml", [value]) => json!(serde_saphyr::to_string(value)?.trim_end()),
        ("nindent", [Value::Number(width), Value::String(text)]) => {
            let margin = " ".repeat(usize::try_from(width.as_u64().context("a width")?)?);
            json!(text.trim_end().lines().fold(String::new(), |lines, line| format!("{lines}\n{margin}{line}")))
        }
        ("quote", [Value::String(text)]) => json!(format!("{text:?}")),
        ("replace", [Value::String(old), Value::String(new), Value::String(text)]) => json!(text.replace(old.as_str(), new)),
        ("fail", [Value::String(reason)]) => bail!("{reason}"),
        _ => bail!("{name} is not known here with these arguments: {arguments:?}"),
    })
}

/// Go's text/template: empty is false.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn printed(value: &Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        // Go would print `<no value>` or `map[...]`, which nobody ever wants.
        other => bail!("{other} is not for printing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> anyhow::Result<String> {
        let root = json!({ "Values": { "yes": true, "name": "n", "list": ["a"], "map": { "k": 1 }, "empty": {} } });
        let file = |name: &str| Ok(format!("file {name}\n"));
        Template::parse(text)?.render(&Input { root: &root, file: &file })
    }

    #[test]
    fn means_what_go_means() {
        for (template, expected) in [
            ("a\n{{- if .Values.yes }}\nb\n{{- else }}\nc\n{{- end }}\nd", "a\nb\nd"),
            ("{{ if not .Values.yes }}a{{ else }}b{{ end }}", "b"),
            ("{{ .Values.name }}:{{ .Values.no | default \"x\" }}", "n:x"),
            ("{{ if or .Values.empty (not .Values.list) }}a{{ end }}", ""),
            ("  k:\n    {{- toYaml .Values.map | nindent 4 }}\nl", "  k:\n    k: 1\nl"),
            ("{{- .Files.Get \"x\" | nindent 2 }}", "\n  file x"),
            ("{{ .Values.name | quote }}", "\"n\""),
            ("{{ .Values.name | replace \"n\" (quote \"m\") }}", "\"m\""),
            ("{{ .Values.missing.deep | default \"x\" }}", "x"),
        ] {
            assert_eq!(rendered(template).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn what_it_does_not_know_is_an_error() {
        for template in [
            "{{ .Values.name",
            "{{ if .Values.yes }}",
            "{{ end }}",
            "{{ range .Values.list }}{{ end }}",
            "{{ .Values.map }}",
            "{{ .Values.no }}",
        ] {
            rendered(template).unwrap_err();
        }
    }

    #[test]
    fn fail_fails() {
        assert!(format!("{:#}", rendered("{{ fail \"no way\" }}").unwrap_err()).contains("no way"));
    }
}
