//! What clients ask of regions beside etcd's API: counters, sets and maps; who the regions are.

use consensus_proto::{
    internal::{internal_request::Request as Internal, peer_request},
    regions::{
        AddRequest, AddResponse, ChangeRequest, ChangeResponse, RemoveRequest, RemoveResponse, StatusRequest,
        StatusResponse, regions_server::Regions as Service,
    },
};
use consensus_regions::{Command, RegionId, limits::INFO_BYTES_MAX};
use consensus_store::Response as Answer;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::{Question, Told};
use crate::{bootstrap::authority, kv::mismatch, server::Server, status};

impl Server {
    /// `None`: this member does not lead, or has no answer.
    pub(crate) async fn region_status_here(&self) -> Option<StatusResponse> {
        let regions = self.shared.regions.as_ref()?;
        self.lead().await?;
        let (answer, answered) = oneshot::channel();
        regions.questions.try_send(Question::Status(answer)).ok()?;
        answered.await.ok()
    }

    fn require_region(&self) -> Result<(), Status> {
        match self.shared.reader.is_region() {
            true => Ok(()),
            false => Err(status::store(&consensus_store::StoreError::NoRegion)),
        }
    }

    async fn change_regions<T>(&self, request: &Request<T>, command: Command) -> Result<(), Status> {
        let credential = self.credential(request);
        let Answer::Region { .. } =
            self.propose_as(&credential, Internal::RegionCommand(command.encode())).await?
        else {
            return Err(mismatch());
        };
        Ok(())
    }
}

/// What is told of a region: its name has no spaces, and its URLs are some.
fn info(request: &AddRequest) -> Result<String, Status> {
    let AddRequest { name, urls, .. } = request;
    let is_word = |text: &String| !text.contains(char::is_whitespace);
    if name.is_empty() || !is_word(name) || !urls.iter().all(|url| is_word(url) && authority(url).is_ok()) {
        return Err(Status::invalid_argument("novacron: a region has a name without spaces, and URLs"));
    }
    let info = Told { name: name.clone(), urls: urls.clone() }.write();
    match info.len() <= INFO_BYTES_MAX {
        true => Ok(info),
        false => Err(Status::invalid_argument(format!(
            "novacron: name and URLs of more than {INFO_BYTES_MAX} bytes"
        ))),
    }
}

#[tonic::async_trait]
impl Service for Server {
    async fn change(&self, request: Request<ChangeRequest>) -> Result<Response<ChangeResponse>, Status> {
        self.require_region()?;
        let credential = self.credential(&request);
        self.check_room().await?;
        let asked = Internal::RegionChange(request.into_inner());
        let Answer::Region { changed } = self.propose_as(&credential, asked).await? else {
            return Err(mismatch());
        };
        Ok(Response::new(ChangeResponse { header: self.header_now(), changed }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.require_user(&request).await?;
        self.require_region()?;
        let asked = peer_request::Request::RegionStatus(request.into_inner());
        let mut response: StatusResponse = self.ask_leader(asked).await?;
        response.header = self.header_now();
        Ok(Response::new(response))
    }

    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddResponse>, Status> {
        self.require_region()?;
        let asked = request.get_ref();
        if asked.region == 0 {
            return Err(Status::invalid_argument("novacron: numbers of regions begin with 1"));
        }
        let (region, info) = (RegionId(asked.region), info(asked)?.into());
        self.change_regions(
            &request,
            Command::AddRegion { wall_ms: self.shared.clock.wall_ms(), region, info },
        )
        .await?;
        Ok(Response::new(AddResponse { header: self.header_now() }))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        self.require_region()?;
        let region = RegionId(request.get_ref().region);
        self.change_regions(&request, Command::RemoveRegion { wall_ms: self.shared.clock.wall_ms(), region })
            .await?;
        Ok(Response::new(RemoveResponse { header: self.header_now() }))
    }
}
