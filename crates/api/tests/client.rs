//! The client against real sockets: servers that are dead, silent, without a leader, or that refuse.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![cfg(feature = "grpc")]

use api::client::{CallError, Client, ClientError, Stubs, new_request_id};
use api::v1;
use api::v1::nodes_server::{Nodes, NodesServer};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

/// Answers every `Cordon` in one way, and counts them.
#[derive(Clone, Debug)]
struct Fake {
    code: Code,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Nodes for Fake {
    async fn cordon(&self, request: Request<v1::NodeRequest>) -> Result<Response<v1::NodeReply>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        assert_eq!(request.get_ref().request_id, "same");
        match self.code {
            Code::Ok => Ok(Response::new(v1::NodeReply { revision: 7, object: None })),
            code => Err(Status::new(code, "says no")),
        }
    }

    async fn uncordon(&self, _: Request<v1::NodeRequest>) -> Result<Response<v1::NodeReply>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::NodeReply>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListNodesReply>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn mark(&self, _: Request<v1::MarkRequest>) -> Result<Response<v1::NodeReply>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn remove(&self, _: Request<v1::NodeRequest>) -> Result<Response<v1::RemoveNodeReply>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

async fn serve(code: Code) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fake = Fake { code, calls: Arc::default() };
    let calls = Arc::clone(&fake.calls);
    let server = tonic::transport::Server::builder().add_service(NodesServer::new(fake));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, calls)
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn cordon(server: Stubs) -> Result<Response<v1::NodeReply>, Status> {
    let request = v1::NodeRequest { name: "n1".into(), request_id: "same".into(), expected_revision: None };
    server.nodes().cordon(request).await
}

#[tokio::test]
async fn another_server_is_asked_when_one_is_dead_or_has_no_leader() {
    let (leaderless, leaderless_calls) = serve(Code::Unavailable).await;
    let (well, well_calls) = serve(Code::Ok).await;
    let client = Client::new(&[nobody().await, leaderless, well]).unwrap();
    assert_eq!(client.call(cordon).await.unwrap().revision, 7);
    assert_eq!(client.call(cordon).await.unwrap().revision, 7);
    assert_eq!(leaderless_calls.load(Ordering::Relaxed), 1, "the server that answered is asked first");
    assert_eq!(well_calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_refusal_is_final() {
    let (refusing, refusing_calls) = serve(Code::FailedPrecondition).await;
    let (well, well_calls) = serve(Code::Ok).await;
    let client = Client::new(&[refusing, well]).unwrap();
    let error = client.call(cordon).await.unwrap_err();
    assert_eq!(error.status().unwrap().code(), Code::FailedPrecondition);
    assert_eq!((refusing_calls.load(Ordering::Relaxed), well_calls.load(Ordering::Relaxed)), (1, 0));
}

#[tokio::test]
async fn nobody_answering_is_told_with_whether_it_may_have_happened() {
    let deadline = Duration::from_millis(500);
    let may_have_happened = async |endpoints: &[String]| match Client::new(endpoints)
        .unwrap()
        .with_deadline(deadline)
        .call(cordon)
        .await
        .unwrap_err()
    {
        CallError::Unreachable { may_have_happened, .. } => may_have_happened,
        CallError::Refused(status) => panic!("{status}"),
    };
    assert!(!may_have_happened(&[nobody().await]).await);
    assert!(may_have_happened(&[serve(Code::Unavailable).await.0]).await);
    // Takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(may_have_happened(&[silent.local_addr().unwrap().to_string()]).await);
}

#[test]
fn addresses_are_checked_and_request_ids_differ() {
    assert!(matches!(Client::new(&[]), Err(ClientError::NoEndpoint)));
    assert!(matches!(Client::new(&["no good".into()]), Err(ClientError::BadEndpoint { .. })));
    assert_ne!(new_request_id(), new_request_id());
}
