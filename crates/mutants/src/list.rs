//! The list. The sentence of each bug says what goes wrong; that it is a bug is what a promise of the design says.

use std::fmt;

macro_rules! mutants {
    ($($(#[doc = $what:literal])+ $variant:ident = $name:literal,)+) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[doc = $what])+ $variant,)+
        }

        impl Mutant {
            /// All of them, in the order of the list.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What goes wrong, in a sentence.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => concat!($($what),+)),+ }
            }
        }
    };
}

mutants! {
    // Durability and agreement (`consensus`).
    /// Entries are acknowledged, and changes answered, before they are on disk.
    ReplyBeforeSync = "reply-before-sync",
    /// A vote is sent before it is on disk: after a crash another may get it, too.
    VoteBeforeSync = "vote-before-sync",
    /// The commit index is written, and synced, before the entries that it covers.
    HardStateBeforeEntries = "hard-state-before-entries",
    /// What a follower acknowledges is sent before it is written.
    PersistedMessageEarly = "persisted-message-early",
    /// Members neither ask before an election whether there is a leader, nor stick to one that they hear.
    NoLeaderCheck = "no-leader-check",
    /// A term and a vote that come without entries are not written at all.
    VoteNotKept = "vote-not-kept",

    // The servers' disks (`journal`).
    /// A sync that failed is taken for one that succeeded.
    SyncErrorIgnored = "sync-error-ignored",
    /// The end of a write that was interrupted is taken for a whole record.
    TornTailAccepted = "torn-tail-accepted",
    /// The checksum of a record is not compared: rot goes unnoticed.
    RecordNotChecked = "record-not-checked",
    /// A file that is written aside gets its name before its bytes are on disk.
    FileNotSynced = "file-not-synced",
    /// The journal lets go of what a snapshot covers before that snapshot is on disk.
    JournalCutTooEarly = "journal-cut-too-early",

    // The servers' brains (`control-core`).
    /// A snapshot does not carry the requests that were applied: a retry is applied twice.
    RequestsForgottenOnSnapshot = "requests-forgotten-on-snapshot",
    /// A snapshot is that of the state before its last entry.
    SnapshotMissesLast = "snapshot-misses-last",
    /// What a leader had in flight when it lost the leadership stays in its state.
    DraftKept = "draft-kept",
    /// A leader decides before it has applied what earlier leaders committed.
    DecidesTooEarly = "decides-too-early",
    /// A batch is applied to another state than the one that it was decided on.
    BatchAtWrongBase = "batch-at-wrong-base",
    /// A read is answered without asking whether this server still leads.
    StaleRead = "stale-read",
    /// What changes nothing is answered without asking whether this server still leads.
    AnswerUnconfirmed = "answer-unconfirmed",
    /// A watcher whose place is forgotten gets what is there, and misses the rest in silence.
    WatchSkipsOnCompaction = "watch-skips-on-compaction",
    /// A leader calls nodes unreachable without waiting for their leases to end.
    ImpatientLeader = "impatient-leader",

    // The refusal (`domain::decide`).
    /// The pods of a silent node are released, and made anew elsewhere.
    RescheduleOnSilence = "reschedule-on-silence",
    /// The volumes of a silent node are detached.
    DetachOnTime = "detach-on-time",
    /// A node that comes back with the same boot is taken for one that was restarted.
    OldBootAsRestart = "old-boot-as-restart",
    /// A boot that does not name the one that it follows is taken for the next one, however late its word comes.
    FormerBootUnchecked = "former-boot-unchecked",
    /// The word of an agent about a former incarnation counts for whoever has the name now.
    SupersededReport = "superseded-report",
    /// A node is removed though it is heard and runs pods.
    LiveNodeRemoved = "live-node-removed",
    /// A pod that is force-deleted is gone at once, though its node can still be told.
    ForcedWhileReachable = "forced-while-reachable",
    /// The pods of a node that comes back are replaced instead of going on.
    ResumedPodReplaced = "resumed-pod-replaced",
    /// A pod whose end was asked for is gone before its agent says so.
    GoneBeforeStopped = "gone-before-stopped",
    /// A request that was applied is applied again by the leader that hears its retry.
    RequestAppliedTwice = "request-applied-twice",
    /// An eviction does not ask the disruption budgets.
    EvictionIgnoresBudget = "eviction-ignores-budget",

    // Sets (`domain::plan`).
    /// Pods of an ordered set are made without waiting for the lower ones.
    CreateWithoutWaiting = "create-without-waiting",
    /// A scale-down ends the lowest surplus pod first.
    DeleteFromBottom = "delete-from-bottom",
    /// A scale-down does not wait for the pods that stay to be available.
    ScaleDownIgnoresKept = "scale-down-ignores-kept",
    /// A rollout begins with the lowest ordinal.
    WrongVictim = "wrong-victim",
    /// A rollout takes one pod more than it may.
    BudgetOffByOne = "budget-off-by-one",
    /// A rollout does not stop at its partition.
    PartitionIgnored = "partition-ignored",
    /// Pods are replaced though the set waits for somebody to delete them.
    OnDeleteReplaces = "on-delete-replaces",
    /// A rollout goes on while it is paused.
    PauseIgnored = "pause-ignored",
    /// A pod counts as available as soon as it is ready.
    MinReadyIgnored = "min-ready-ignored",
    /// A pod is stopped without its grace.
    GraceZero = "grace-zero",
    /// A revision that becomes the target again keeps its old number.
    RevisionNumberKept = "revision-number-kept",
    /// The rollout of a parallel set does not count the pods that are away already.
    ParallelIgnoresUnavailable = "parallel-ignores-unavailable",

    // Claims, volumes and places (`domain::plan`).
    /// A claim goes while a pod still uses it.
    ClaimDeletedUnderPod = "claim-deleted-under-pod",
    /// A volume whose claim is gone and whose data is to be kept is given to the next claim.
    RetainedVolumeRebound = "retained-volume-rebound",
    /// A second pod gets the claim that only one may use.
    TwoPodsOnOneClaim = "two-pods-on-one-claim",
    /// A volume is attached to a second node while the first still has it.
    AttachedTwice = "attached-twice",
    /// A volume is attached anew under the fence that it had before.
    FenceNotRaised = "fence-not-raised",
    /// A node gets pods while it still ends those of a former assignment.
    WorkDespiteLeftovers = "work-despite-leftovers",
    /// A node that is cordoned gets pods.
    CordonIgnored = "cordon-ignored",
    /// A node that is not heard gets pods.
    SilentNodeChosen = "silent-node-chosen",
    /// A node that is being shut down gets pods.
    LeavingNodeChosen = "leaving-node-chosen",

    // Agents (`agent-core`).
    /// An agent forgets what it was told before it does it: after a crash it does not know its own pods.
    LedgerNotSaved = "ledger-not-saved",
    /// An agent begins pods before it has ended those that are not its own any more.
    LeftoversNotEndedFirst = "leftovers-not-ended-first",
    /// An agent does not end what is not assigned to it any more.
    LeftoversKept = "leftovers-kept",
    /// Containers are started before their volumes are attached.
    StartBeforeAttach = "start-before-attach",
    /// A volume is attached under a fence older than one that was seen here.
    StaleFenceAccepted = "stale-fence-accepted",
    /// After a restart of its machine an agent goes on with the pods of the former boot.
    FormerBootResumed = "former-boot-resumed",
    /// An agent says that a pod is gone when its stop begins.
    GoneWhenStopBegins = "gone-when-stop-begins",
    /// What is found on a node is taken for the pod that was there, without asking when it was started.
    AdoptedUnchecked = "adopted-unchecked",
}

impl Mutant {
    /// The bug of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_bug_has_a_name_of_its_own_and_a_sentence() {
        let names: BTreeSet<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::find(mutant.name()), Some(*mutant));
            assert!(mutant.what().trim().ends_with('.'), "{mutant}: {:?}", mutant.what());
        }
    }
}
