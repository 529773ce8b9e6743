//! `novacron kv txn`: a transaction, read from a file or from standard input.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Args;
use consensus_proto::etcdserverpb::{
    RequestOp, TxnRequest, TxnResponse, request_op::Request, response_op::Response,
};
use novacron_store::Client;

use super::{
    answer, input, kv,
    output::print,
    txn_text::{Operation, Script},
};
use crate::exit::{self, Usage};

/// Longest text of a transaction in bytes.
const TEXT_BYTES_MAX: u64 = 16 << 20;

pub(crate) const HELP: &str = r#"The text has three parts, with an empty line after each: what is compared, the requests if all of it holds, and the
requests if not. Headings (`compares:`, `success:`, `failure:`) may begin the parts instead; empty lines mean nothing
then. `#` begins a line that is not read.

  mod("config/a") = "0"

  put config/a "first value"
  get config/ --prefix

  get config/a

A comparison is TARGET("KEY") OPERATOR "VALUE". Targets: version, create, mod (revisions), value, lease; operators:
= != > <. Requests: get, put and del with the flags of these commands. Words are quoted as in a shell; in double quotes
\n \r \t \" \\ and \xNN have their meaning.

Prints SUCCESS or FAILURE, and after an empty line each what the requests say. Both are exit code 0."#;

#[derive(Args, Debug)]
pub(crate) struct TxnArgs {
    /// The text; - is standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
}

impl Operation {
    fn request(&self) -> Result<RequestOp> {
        let request = match self {
            Self::Get(args) => Request::RequestRange(args.request()),
            Self::Put(args) => Request::RequestPut(args.request()?),
            Self::Del(args) => Request::RequestDeleteRange(args.request()),
        };
        Ok(RequestOp { request: Some(request) })
    }
}

fn requests(operations: &[Operation]) -> Result<Vec<RequestOp>> {
    operations.iter().map(Operation::request).collect()
}

pub(super) async fn run(client: &Client, args: &TxnArgs, json: bool) -> Result<u8> {
    let name = args.file.display();
    let text = String::from_utf8(input::read(&args.file, TEXT_BYTES_MAX)?).map_err(|_| {
        Usage(format!("{name}: not UTF-8: other bytes are written as \\xNN in double quotes"))
    })?;
    let script = match Script::parse(&text) {
        Ok(script) => script,
        Err(error) => bail!(Usage(format!("{name}: {error}"))),
    };
    let request = TxnRequest {
        compare: script.compare.clone(),
        success: requests(&script.success)?,
        failure: requests(&script.failure)?,
    };
    let is_read = |operation: &Operation| matches!(operation, Operation::Get(_));
    let answer = if script.success.iter().chain(&script.failure).all(is_read) {
        client.read("txn", request, |link, request| async move { link.kv().txn(request).await }).await?
    } else {
        client.write("txn", request, |link, request| async move { link.kv().txn(request).await }).await?
    };
    if json {
        print(answer::txn(&answer))?
    } else {
        show(&script, &answer)?
    }
    Ok(exit::OK)
}

fn show(script: &Script, answer: &TxnResponse) -> Result<()> {
    let (word, operations) =
        if answer.succeeded { ("SUCCESS", &script.success) } else { ("FAILURE", &script.failure) };
    print(word)?;
    ensure!(operations.len() == answer.responses.len(), "txn: the member answers another transaction");
    for (operation, response) in operations.iter().zip(&answer.responses) {
        print("")?;
        match (operation, &response.response) {
            (Operation::Get(args), Some(Response::ResponseRange(answer))) => kv::print_range(args, answer)?,
            (Operation::Put(_), Some(Response::ResponsePut(answer))) => kv::print_put(answer)?,
            (Operation::Del(_), Some(Response::ResponseDeleteRange(answer))) => kv::print_deleted(answer)?,
            _ => bail!("txn: the member answers another transaction"),
        }
    }
    Ok(())
}
