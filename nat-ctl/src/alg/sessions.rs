//! The sessions of a gateway, by their number.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use nat_common::rule::RuleId;

use super::{
    Command, Segment,
    expect::{Gateway, PortRequest},
    flow::{ControlFlow, Side},
    image::ImageError,
    policy::Policy,
    quota::Clients,
    refusal::Refusal,
    session::Session,
};

/// Every control flow that is being read.
#[derive(Debug, Default)]
pub struct Sessions {
    open: HashMap<u32, Session>,
    policy: Arc<Policy>,
    /// What holds for sessions by rules that say something of their own.
    by_rule: BTreeMap<RuleId, Arc<Policy>>,
    clients: Clients,
}

/// The rest of the gateway, and who may announce something now.
struct Counting<'a> {
    gateway: &'a mut dyn Gateway,
    clients: &'a mut Clients,
    now: u32,
}

impl Sessions {
    /// No session, and what holds for those to come.
    pub fn new(policy: Policy) -> Sessions {
        let clients = Clients::new(policy.quota);
        let policy = Arc::new(policy);
        Sessions { open: HashMap::new(), policy, by_rule: BTreeMap::new(), clients }
    }

    /// Sessions to come by these rules of the gateway are held to strict mode, or not; all others as it holds
    /// for everybody.
    pub fn hold(&mut self, rules: &BTreeMap<RuleId, bool>) {
        let [strict, usual] = [true, false].map(|strict| Arc::new(self.policy.held(strict)));
        let policy = |held: &bool| Arc::clone(if *held { &strict } else { &usual });
        self.by_rule = rules.iter().map(|(rule, held)| (*rule, policy(held))).collect();
    }

    /// What holds for a session by a rule, or by none.
    fn policy(&self, rule: RuleId) -> Arc<Policy> {
        Arc::clone(self.by_rule.get(&rule).unwrap_or(&self.policy))
    }

    /// A session from its SYN on, in the place of one that had its number before.
    pub fn start(&mut self, flow: ControlFlow, rule: RuleId) -> &mut Session {
        self.put(Session::new(flow, self.policy(rule)))
    }

    /// A session whose beginning nobody knows any more.
    pub fn pick_up(&mut self, flow: ControlFlow, rule: RuleId) {
        self.put(Session::picked_up(flow, self.policy(rule)));
    }

    /// A session that a predecessor has read: each side, client and server, up to the start of a line, or
    /// nobody knows where.
    pub fn rejoin(&mut self, flow: ControlFlow, rule: RuleId, lines: [Option<u32>; 2]) {
        let mut session = Session::picked_up(flow, self.policy(rule));
        for (side, line) in [Side::Client, Side::Server].into_iter().zip(lines) {
            if let Some(line) = line {
                session.reads_on(side, line);
            }
        }
        self.put(session);
    }

    /// Goes on with a session that a predecessor has left; `None` where that is of another flow.
    pub fn resume(
        &mut self,
        image: &[u8],
        flow: &ControlFlow,
        rule: RuleId,
    ) -> Result<Option<&mut Session>, ImageError> {
        let session = Session::from_bytes(image, self.policy(rule))?;
        if session.flow() != flow {
            return Ok(None);
        }
        Ok(Some(self.put(session)))
    }

    /// A session by its number.
    pub fn find(&mut self, session: u32) -> Option<&mut Session> {
        self.open.get_mut(&session)
    }

    /// A segment of a session in the second `now`; `None` when there is no such session.
    pub fn on_segment(
        &mut self,
        session: u32,
        segment: &Segment<'_>,
        gateway: &mut dyn Gateway,
        now: u32,
    ) -> Option<Vec<Command>> {
        let (session, clients) = (self.open.get_mut(&session)?, &mut self.clients);
        let before = session.pinholes();
        let commands = session.on_segment(segment, &mut Counting { gateway, clients, now });
        clients.changed(session.flow().client.ip(), before, session.pinholes());
        Some(commands)
    }

    /// The control flow is over.
    pub fn end(&mut self, session: u32, gateway: &mut dyn Gateway) -> Vec<Command> {
        let commands = self.finish(session, gateway);
        self.open.remove(&session);
        commands
    }

    /// The control flow is over, but what it has sent may come again.
    pub fn finish(&mut self, session: u32, gateway: &mut dyn Gateway) -> Vec<Command> {
        let Some(session) = self.open.get_mut(&session) else { return Vec::new() };
        self.clients.changed(session.flow().client.ip(), session.pinholes(), 0);
        session.on_flow_end(gateway)
    }

    /// Forgets what need not be known in the second `now` of clients that are quiet.
    pub fn tidy(&mut self, now: u32) {
        self.clients.forget(now);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.open.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Puts a session in the place of what had its number.
    fn put(&mut self, session: Session) -> &mut Session {
        let flow = *session.flow();
        let pinholes = session.pinholes();
        let entry = self.open.entry(flow.session);
        if let Entry::Occupied(before) = &entry {
            let before = before.get();
            self.clients.changed(before.flow().client.ip(), before.pinholes(), 0);
        }
        self.clients.changed(flow.client.ip(), 0, pinholes);
        entry.insert_entry(session).into_mut()
    }
}

impl Gateway for Counting<'_> {
    fn claim(&mut self, request: &PortRequest) -> Option<u16> {
        self.gateway.claim(request)
    }

    fn admit(&mut self, client: IpAddr) -> Result<(), Refusal> {
        self.clients.admit(client, self.now)
    }

    fn release(&mut self, public: SocketAddr) {
        self.gateway.release(public);
    }

    fn keeps_ports(&self) -> bool {
        self.gateway.keeps_ports()
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        self.gateway.is_inside(address)
    }
}
