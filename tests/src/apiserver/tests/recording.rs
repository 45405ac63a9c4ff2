//! Reading the recordings: requests after `>>>`, response heads after `<<<`, then the body as sent.

/// One request and its answer.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) method: String,
    pub(super) path: String,
    /// Recorded with a token that is not valid.
    pub(super) wrong_token: bool,
    pub(super) content_type: String,
    pub(super) body: String,
    pub(super) status: u16,
    pub(super) answer_type: String,
    /// The body of the answer: one line, or one for each event of a watch.
    pub(super) lines: Vec<String>,
}

pub(super) fn parse(text: &str) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    let mut in_request = false;
    for line in text.lines() {
        if let Some(request) = line.strip_prefix(">>>") {
            let request = request.trim();
            if !in_request {
                let (method, path) = request.split_once(' ').unwrap();
                let (path, wrong_token) = path.strip_suffix("(wrong token)").map_or((path, false), |path| (path, true));
                let (method, path) = (method.to_owned(), path.trim().to_owned());
                exchanges.push(Exchange { method, path, wrong_token, ..Exchange::default() });
                in_request = true;
            } else if let Some(value) = request.strip_prefix("Content-Type: ") {
                exchanges.last_mut().unwrap().content_type = value.to_owned();
            } else {
                exchanges.last_mut().unwrap().body += request;
            }
            continue;
        }
        let Some(exchange) = exchanges.last_mut() else { continue };
        if let Some(head) = line.strip_prefix("<<<") {
            in_request = false;
            let head = head.trim();
            if exchange.status == 0 {
                exchange.status = head.split(' ').next().unwrap().parse().unwrap();
            } else if let Some(value) = head.strip_prefix("Content-Type: ") {
                exchange.answer_type = value.to_owned();
            }
        } else if !line.is_empty() {
            exchange.lines.push(line.to_owned());
        }
    }
    exchanges
}
