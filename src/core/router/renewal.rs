//! What a router keeps in a process of its own: the subscriptions, and nothing that is under way.

use super::{Router, Trash};

impl<H, M, D: Clone> Router<H, M, D> {
    /// Lets go of all messages and calls, and of all deliverers at work: somebody else, who has
    /// them too, goes on with them. Nothing of it counts as dropped.
    pub fn renew(&mut self, trash: &mut Trash<H, M, D>) {
        let before = trash.logged.len();
        for (_, lane) in &mut self.lanes {
            lane.log
                .remove_unless(|_| false, &self.registry, &mut trash.logged);
            lane.overlapping
                .remove_unless(|_| false, &super::Own, &mut trash.calls);
            trash.fanouts.extend(lane.interrupted.take());
            trash.subscriptions.extend(lane.resumed.drain(..));
            lane.dispatching = None;
            (lane.awake, lane.calling) = (0, 0);
        }
        self.forget_replays(trash);
        let mailboxes = self.mailboxes.drain();
        trash
            .envelopes
            .extend(mailboxes.flat_map(|(_, mailbox)| mailbox));
        let records = self.records.drain().map(|(_, record)| record.envelope);
        trash.envelopes.extend(records);
        self.registry.abandon_queues(&mut trash.calls);
        self.reports.renew(trash);
        (self.waiting, self.under_way) = (0, 0);
        self.registry.settle(&mut trash.envelopes);
        for index in before..trash.logged.len() {
            self.release_group(trash.logged[index].0, trash);
        }
        let lanes: Vec<_> = self.lanes.iter().map(|(index, _)| index).collect();
        for lane in lanes {
            #[expect(clippy::cast_possible_truncation, reason = "a lane's key fits")]
            self.release_lane(lane as super::LaneKey, trash);
        }
    }
}
