//! A server of the page and of the visitor's own files, which fails where it is told to.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// Serves the page, and the visitor's own. Gives its address, and what the visitor will tell.
pub fn serve(page: PathBuf, wishes: Value) -> (String, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (tell, result) = channel();
    let server = Arc::new(Server {
        page,
        wishes,
        tell,
        held: Mutex::default(),
        failing: Mutex::new(vec!["/hybridnorm_web_bg.wasm".to_string()]),
    });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = server.clone();
            thread::spawn(move || server.answer(stream));
        }
    });
    (address, result)
}

struct Server {
    page: PathBuf,
    wishes: Value,
    tell: Sender<Vec<u8>>,
    /// Requests that wait for the end of the visit.
    held: Mutex<Vec<TcpStream>>,
    /// Paths whose next request fails.
    failing: Mutex<Vec<String>>,
}

impl Server {
    /// Answers one request. `/hold` waits until there is a result.
    fn answer(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.to_string();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let mut failing = self.failing.lock().unwrap();
        if let Some(place) = failing.iter().position(|failing| *failing == path) {
            failing.remove(place);
            return refuse(&stream, "503 Service Unavailable");
        }
        drop(failing);
        match path.as_str() {
            "/hold" => self.held.lock().unwrap().push(stream),
            "/result" => {
                self.tell.send(body).ok()?;
                reply(&stream, "text/plain", b"")?;
                for held in self.held.lock().unwrap().drain(..) {
                    // A picture of one pixel.
                    let pixel = "<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>";
                    reply(&held, "image/svg+xml", pixel.as_bytes())?;
                }
            }
            "/fail" => {
                let path = String::from_utf8(body).ok()?;
                self.failing.lock().unwrap().push(path);
                reply(&stream, "text/plain", b"")?;
            }
            "/wishes" => reply(
                &stream,
                "application/json",
                self.wishes.to_string().as_bytes(),
            )?,
            "/drive.html" => reply(&stream, "text/html", include_bytes!("drive.html"))?,
            "/drive.js" => reply(&stream, "text/javascript", include_bytes!("drive.js"))?,
            path => {
                let kind = match path.rsplit_once('.').map(|(_, ending)| ending) {
                    Some("html") => "text/html",
                    Some("js") => "text/javascript",
                    Some("css") => "text/css",
                    Some("json") => "application/json",
                    Some("wasm") => "application/wasm",
                    _ => "application/octet-stream",
                };
                match fs::read(self.page.join(path.trim_start_matches('/'))) {
                    Ok(bytes) => reply(&stream, kind, &bytes)?,
                    Err(_) => refuse(&stream, "404 Not Found")?,
                }
            }
        }
        Some(())
    }
}

fn refuse(mut stream: &TcpStream, status: &str) -> Option<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()
}

fn reply(mut stream: &TcpStream, kind: &str, bytes: &[u8]) -> Option<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(bytes).ok()
}
