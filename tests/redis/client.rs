//! What the client of Redis promises, against a real server.

use std::time::Duration;

use revolve::resp::script::Calling;
use revolve::resp::{
    ConnectOptions, Connection, ConnectionError, ErrorKind, Event, Pipeline, Reply, Script,
    Subscriber,
};

use crate::server::{Redis, ask, bulk, connect, ok, options};

/// So short that a test can wait for it, where nothing comes.
const SOON: Duration = Duration::from_millis(50);

fn error_kind(reply: &Reply) -> Option<ErrorKind> {
    reply.error().map(|error| error.kind())
}

#[test]
fn commands_are_answered_in_their_order() {
    let server = Redis::start(&[]);
    for address in [server.address("", ""), server.unix_address()] {
        let mut connection = connect(&address);
        assert_eq!(ask(&mut connection, &["FLUSHALL"]), ok());
        let mut pipeline = Pipeline::new();
        for number in 0..1000 {
            pipeline.push_with(|command| {
                command.add("RPUSH");
                command.add("list");
                command.add_number(number);
            });
        }
        pipeline.push(["LRANGE", "list", "0", "-1"]);
        pipeline.push(["GET", "nothing"]);
        pipeline.push(["GET", "list"]);
        let replies = connection.exchange(&pipeline).unwrap();
        let lengths: Vec<i64> = replies[..1000].iter().filter_map(Reply::integer).collect();
        assert_eq!(lengths, (1..=1000).collect::<Vec<_>>());
        let numbers: Vec<Reply> = (0..1000).map(|number| bulk(&number.to_string())).collect();
        assert_eq!(replies[1000], Reply::Array(numbers));
        assert_eq!(replies[1001], Reply::Null);
        assert!(replies[1002].error().unwrap().to_string().starts_with("WRONGTYPE"));
        assert_eq!(ask(&mut connection, &["CLIENT", "GETNAME"]), bulk("revolve-test"));
    }
}

#[test]
fn any_bytes_come_back_as_they_went() {
    let server = Redis::start(&[]);
    let mut connection = server.connect();
    let all: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    for value in [&b""[..], b"\r\n", b"$-1\r\n", &all] {
        let mut pipeline = Pipeline::new();
        pipeline.push([&b"SET"[..], b"key", value]);
        pipeline.push([&b"GET"[..], b"key"]);
        let replies = connection.exchange(&pipeline).unwrap();
        assert_eq!(replies, [ok(), Reply::Bulk(value.to_vec())]);
    }
    // More than was to be expected is refused, and costs the connection.
    let small = ConnectOptions { reply_bytes_most: 1_000_000, ..options() };
    let mut connection = Connection::connect(&server.address("", ""), &small).unwrap();
    let mut pipeline = Pipeline::new();
    pipeline.push(["GET", "key"]);
    assert!(matches!(connection.exchange(&pipeline), Err(ConnectionError::Malformed(_))));
    assert!(matches!(connection.exchange(&pipeline), Err(ConnectionError::Unusable)));
}

#[test]
fn a_server_knows_us_by_user_and_password_and_database() {
    let server = Redis::start(&["--requirepass", "s3cret/@:"]);
    let mut default = connect(&server.address(":s3cret%2F%40%3A@", ""));
    for user in
        [&["me", "on", ">pass", "~*", "&*", "+@all"][..], &["guest", "on", ">guest", "+ping"]]
    {
        assert_eq!(ask(&mut default, &[&["ACL", "SETUSER"], user].concat()), ok());
    }
    let refused = |credentials: &str, database: &str| {
        let address = server.address(credentials, database);
        let error = Connection::connect(&address, &options()).unwrap_err();
        let text = error.to_string();
        assert!(!text.contains("s3cret") && !text.contains("wrong"), "{text}");
        match error {
            ConnectionError::Refused { command, error } => (command, error.kind()),
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused("", ""), ("PING", ErrorKind::NotAuthenticated));
    assert_eq!(refused(":wrong@", ""), ("AUTH", ErrorKind::NotAuthenticated));
    assert_eq!(refused("nobody:wrong@", ""), ("AUTH", ErrorKind::NotAuthenticated));
    assert_eq!(refused("me:pass@", "/99"), ("SELECT", ErrorKind::Other));
    assert_eq!(refused("guest:guest@", "/1"), ("SELECT", ErrorKind::NotPermitted));
    // To this one even its name is forbidden.
    let mut guest = connect(&server.address("guest:guest@", ""));
    let reply = ask(&mut guest, &["GET", "key"]);
    assert_eq!(error_kind(&reply), Some(ErrorKind::NotPermitted));

    let mut first = connect(&server.address("me:pass@", "/1"));
    assert_eq!(ask(&mut first, &["SET", "key", "one"]), ok());
    assert_eq!(ask(&mut default, &["GET", "key"]), Reply::Null);
    let mut second = connect(&server.address(":s3cret%2F%40%3A@", "/1"));
    assert_eq!(ask(&mut second, &["GET", "key"]), bulk("one"));
}

#[test]
fn a_script_is_run_though_the_server_has_forgotten_it() {
    let server = Redis::start(&[]);
    let mut connection = server.connect();
    let script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let run = |connection: &mut Connection| {
        let reply = connection.run(&script, 1, |call| {
            call.add("counter");
            call.add_number(2);
        });
        reply.unwrap()
    };
    for expected in [2, 4] {
        assert_eq!(run(&mut connection), Reply::Integer(expected));
    }
    assert_eq!(ask(&mut connection, &["SCRIPT", "FLUSH"]), ok());
    assert_eq!(run(&mut connection), Reply::Integer(6), "it was run once");

    // In a pipeline nothing is sent again: what stands behind the call was done.
    assert_eq!(ask(&mut connection, &["SCRIPT", "FLUSH"]), ok());
    let mut pipeline = Pipeline::new();
    pipeline.push_script(&script, Calling::ByName, 1, |call| {
        call.add("counter");
        call.add_number(2);
    });
    pipeline.push(["GET", "counter"]);
    let replies = connection.exchange(&pipeline).unwrap();
    assert!(replies[0].is_error(ErrorKind::NoScript));
    assert_eq!(replies[1], bulk("6"));
    connection.load(&[&script]).unwrap();
    let replies = connection.exchange(&pipeline).unwrap();
    assert_eq!(replies, [Reply::Integer(8), bulk("8")]);

    let broken = Script::new("this is no Lua");
    let error = connection.load(&[&broken]).unwrap_err();
    assert!(matches!(error, ConnectionError::Refused { .. }), "{error}");
    // That was an answer: the connection goes on.
    assert_eq!(ask(&mut connection, &["GET", "counter"]), bulk("8"));
}

#[test]
fn errors_that_decide_something_are_told_apart() {
    let server = Redis::start(&["--busy-reply-threshold", "10"]);
    let mut connection = server.connect();
    let set = |connection: &mut Connection| error_kind(&ask(connection, &["SET", "key", "x"]));
    let config = |connection: &mut Connection, name: &str, value: &str| {
        assert_eq!(ask(connection, &["CONFIG", "SET", name, value]), ok());
    };
    assert_eq!(set(&mut connection), None);

    config(&mut connection, "maxmemory", "1");
    assert_eq!(set(&mut connection), Some(ErrorKind::OutOfMemory));
    // So it is inside of a script.
    let script = Script::new("return redis.call('SET', KEYS[1], 'x')");
    let reply = connection.run(&script, 1, |call| call.add("key")).unwrap();
    assert_eq!(error_kind(&reply), Some(ErrorKind::OutOfMemory));
    config(&mut connection, "maxmemory", "0");

    config(&mut connection, "min-replicas-to-write", "1");
    assert_eq!(set(&mut connection), Some(ErrorKind::NoReplicas));
    config(&mut connection, "min-replicas-to-write", "0");

    // A replica of one that is not there: port 1 of its own address.
    assert_eq!(ask(&mut connection, &["REPLICAOF", server.host(), "1"]), ok());
    assert_eq!(set(&mut connection), Some(ErrorKind::ReadOnly));
    config(&mut connection, "replica-serve-stale-data", "no");
    let reply = ask(&mut connection, &["GET", "key"]);
    assert_eq!(error_kind(&reply), Some(ErrorKind::MasterDown));
    let error = Connection::connect(&server.address("", ""), &options()).unwrap_err();
    assert!(error.to_string().contains("a replica without its primary"), "{error}");
    assert_eq!(ask(&mut connection, &["REPLICAOF", "NO", "ONE"]), ok());

    // Somebody's script that does not end.
    let mut other = server.connect();
    let endless = std::thread::spawn(move || ask(&mut other, &["EVAL", "while true do end", "0"]));
    while error_kind(&ask(&mut connection, &["GET", "key"])) != Some(ErrorKind::Busy) {}
    assert_eq!(ask(&mut connection, &["SCRIPT", "KILL"]), ok());
    let killed = endless.join().unwrap();
    assert!(killed.error().unwrap().to_string().contains("killed"), "{killed:?}");
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let server = Redis::start(&[]);
    let soon = ConnectOptions { connect_timeout: SOON, reply_timeout: SOON, ..options() };
    let slow = ConnectOptions { reply_timeout: SOON, ..options() };
    let mut connection = Connection::connect(&server.address("", ""), &slow).unwrap();
    let mut subscriber = Subscriber::connect(&server.address("", ""), &slow).unwrap();
    // As a machine that is suspended: its kernel takes what comes.
    server.signal("-STOP");
    let mut pipeline = Pipeline::new();
    pipeline.push(["INCR", "key"]);
    assert!(matches!(connection.exchange(&pipeline), Err(ConnectionError::TimedOut)));
    assert!(matches!(connection.exchange(&pipeline), Err(ConnectionError::Unusable)));
    for address in [server.address("", ""), server.unix_address()] {
        let refused = Connection::connect(&address, &soon);
        assert!(matches!(refused, Err(ConnectionError::TimedOut)), "{refused:?}");
    }
    // To one who listens, silence is no failure; that the ping is not answered is what tells.
    subscriber.ping().unwrap();
    assert_eq!(subscriber.next_event(SOON).unwrap(), None);
    // What was given up is done all the same.
    server.signal("-CONT");
    let mut connection = server.connect();
    while ask(&mut connection, &["GET", "key"]) != bulk("1") {}
    assert_eq!(subscriber.next_event(options().reply_timeout).unwrap(), Some(Event::Pong));
}

#[test]
fn messages_come_in_their_order_to_those_who_listen() {
    let mut server = Redis::start(&[]);
    let mut subscriber = Subscriber::connect(&server.address("", ""), &options()).unwrap();
    let long = options().reply_timeout;
    assert_eq!(subscriber.next_event(SOON).unwrap(), None);
    subscriber.subscribe(&["a", "b"]).unwrap();
    for channel in [b"a", b"b"] {
        let event = subscriber.next_event(long).unwrap();
        assert_eq!(event, Some(Event::Subscribed(channel.to_vec())));
    }
    let mut connection = server.connect();
    let mut pipeline = Pipeline::new();
    for number in 0..1000 {
        let channel = if number % 2 == 0 { "a" } else { "b" };
        pipeline.push(["PUBLISH", channel, &number.to_string()]);
        pipeline.push(["PUBLISH", "another", "nobody hears this"]);
    }
    let heard = connection.exchange(&pipeline).unwrap();
    assert_eq!(heard.iter().filter_map(Reply::integer).sum::<i64>(), 1000);
    for number in 0..1000 {
        let channel = if number % 2 == 0 { b"a" } else { b"b" }.to_vec();
        let payload = number.to_string().into_bytes();
        let event = subscriber.next_event(long).unwrap();
        assert_eq!(event, Some(Event::Message { channel, payload }));
    }
    subscriber.ping().unwrap();
    assert_eq!(subscriber.next_event(long).unwrap(), Some(Event::Pong));
    subscriber.unsubscribe::<&str>(&[]).unwrap();
    subscriber.unsubscribe(&["a"]).unwrap();
    let event = subscriber.next_event(long).unwrap();
    assert_eq!(event, Some(Event::Unsubscribed(b"a".to_vec())));
    assert_eq!(ask(&mut connection, &["PUBLISH", "a", "x"]), Reply::Integer(0));

    // A server that ends says so, to both.
    server.end();
    let ended = |error| matches!(error, ConnectionError::Closed | ConnectionError::Io(_));
    assert!(ended(subscriber.next_event(long).unwrap_err()));
    let mut pipeline = Pipeline::new();
    pipeline.push(["PING"]);
    assert!(ended(connection.exchange(&pipeline).unwrap_err()));
    let gone = Connection::connect(&server.address("", ""), &options());
    assert!(matches!(gone, Err(ConnectionError::Connect(_))), "{gone:?}");
}
