//! A server's broker: the thread that speaks with it, told of the settings, and where its answers go.
//!
//! Decides nothing about tasks. Called by `server.rs`.
//!
//! Invariant: without a broker no thread is started, and nothing is connected to.
//!
//! Next: [`crate::live_settings`]: changing the settings of a running server.

use std::io;
use std::sync::Arc;

use crate::config::Config;
use crate::mailbox::MailSender;
use crate::server_status::ServerStatus;
use crate::tasks::thread::{BrokerOptions, BrokerThread, OrderSender};

/// The running thread and the way to it, if there is a broker.
pub(crate) struct ServerTasks(Option<(OrderSender, BrokerThread)>);

impl ServerTasks {
    /// Starts the thread, if there is a broker.
    ///
    /// # Errors
    ///
    /// If the system has no thread, no descriptor or no randomness for it.
    pub(crate) fn start<S: Send + 'static>(
        config: &Config,
        status: &ServerStatus,
        mail: &Arc<[MailSender<S>]>,
    ) -> io::Result<ServerTasks> {
        let Some(address) = &config.broker else { return Ok(ServerTasks(None)) };
        let options = BrokerOptions {
            address: address.clone(),
            tasks_most: config.workers.get() * config.limits.tasks_per_reactor,
            send_timeout: config.broker_timeout,
            result_bytes_most: config.limits.task_bytes,
        };
        let answers = mail.clone();
        let tell = Box::new(move |reactor: usize, finished| answers[reactor].send_answer(finished));
        let started = BrokerThread::start(options, status.task_metrics().clone(), tell)?;
        Ok(ServerTasks(Some(started)))
    }

    /// A reactor's way to it.
    pub(crate) fn orders(&self) -> Option<OrderSender> {
        self.0.as_ref().map(|(orders, _)| orders.clone())
    }

    /// The thread, which ends when the reactors have ended that have a way to it.
    pub(crate) fn into_thread(self) -> Option<BrokerThread> {
        self.0.map(|(_, thread)| thread)
    }
}
