//! Work that takes long, done by a Celery worker: a report of as many pages as you send.
//!
//! ```text
//! redis-server                                # and, in this folder: celery -A worker worker
//! cargo run --example tasks                   # or: cargo run --example tasks -- 9004 redis://127.0.0.1:6379/0
//! websocat ws://127.0.0.1:9004/reports        # 30 takes a moment; 2000 fails, and says why
//! ```
//!
//! The worker is `worker.py`, beside this file, and knows nothing of revolve. Its results come back to the connection
//! that asked, in the order of asking. The server runs until you press Enter, or until stdin closes.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::Duration;

use revolve::{Application, Config, Context, Message, Server, ServerAddress, Task, TaskOutcome};

struct Reports;

impl Application for Reports {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return cx.close(1003, "text only, please") };
        let Ok(pages) = text.trim().parse::<u32>() else {
            return cx.send_text("how many pages, please?");
        };
        let task = Task::celery("reports.render")
            .args_json(format!(r#"["yearly", {pages}]"#))
            .timeout(Duration::from_secs(10));
        let taken = cx.enqueue(task, |_, cx, result| match result.outcome {
            TaskOutcome::Success(report) => cx.send_text(&report),
            failure => cx.send_text(&format!("{failure}")),
        });
        if let Err(error) = taken {
            cx.send_text(&format!("{error}"));
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().unwrap_or("9004".to_owned()).parse()?;
    let broker = arguments.next().unwrap_or("redis://127.0.0.1:6379/0".to_owned());
    let config = Config {
        ws_path: "/reports".to_owned(),
        broker: Some(ServerAddress::parse(&broker)?),
        broker_timeout: Duration::from_secs(2),
        ..Config::default()
    };
    let server = Server::builder().config(config).port(port).serve(|_| Reports)?;
    println!("ws://{}/reports (Enter ends it)", server.addresses()[0]);
    std::io::stdin().read_line(&mut String::new())?;
    server.shutdown();
    server.join();
    Ok(())
}
