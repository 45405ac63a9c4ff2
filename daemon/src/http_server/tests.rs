use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

struct Echo;

impl Answer for Echo {
    fn answer(&self, request: &Request<'_>) -> Reply {
        text(StatusCode::OK, format!("{} {} {}", request.method, request.path, String::from_utf8_lossy(request.body)))
    }
}

async fn server() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(serve(listener, Arc::new(Echo), cancel.clone()));
    (address, cancel, running)
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn method_path_and_body_reach_the_handler() {
    let (address, cancel, running) = server().await;
    let answer =
        ask(address, "PUT /debug/flags/v?x=1 HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nconnection: close\r\n\r\ndebug").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("x-content-type-options: nosniff\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nPUT /debug/flags/v debug"), "{answer}");
    cancel.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_large_body_is_refused_and_nonsense_does_no_harm() {
    let (address, ..) = server().await;
    let answer = ask(
        address,
        &format!("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\nconnection: close\r\n\r\n{}", "x".repeat(9999)),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(ask(address, "\u{1}\u{2}\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    assert!(ask(address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_end_of_the_server_closes_idle_connections_and_frees_the_port() {
    let (address, cancel, running) = server().await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 1024];
    assert!(idle.read(&mut first).await.unwrap() > 0);
    cancel.cancel();
    running.await.unwrap();
    assert_eq!(idle.read(&mut first).await.unwrap(), 0);
    bind(address, false).unwrap();
}

#[tokio::test]
async fn peers_that_say_nothing_keep_nobody_out() {
    let (address, ..) = server().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(ask(address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
    let mut buffer = [0; 1024];
    assert_eq!(silent[0].read(&mut buffer).await.unwrap(), 0, "the oldest has made room");
    silent[1].write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(silent[1].read(&mut buffer).await.unwrap() > 0, "nobody else had to go");
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let (address, ..) = server().await;
    let error = bind(address, false).unwrap_err();
    assert_eq!(error.address, address);
    assert!(error.to_string().starts_with(&format!("listen on {address}: ")), "{error}");
}
