//! The closed list of reasons why something is as it is. Never says anything about one object: `why` does.

macro_rules! reasons {
    ($($(#[doc = $what:literal])+ $(#[$default:ident])? $variant:ident,)+) => {
        /// Why an object is as it is, in a word. A new reason goes to the end of its kind.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $what])+ $(#[$default])? $variant,)+
        }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }
    };
}

reasons! {
    /// It is as it should be: nothing is in its way.
    #[default]
    AsWanted,

    // Pods.
    /// Its node is unreachable, and it may still be running there.
    Held,
    /// It is to stop, and its node has yet to say that it has.
    Stopping,
    /// No node takes it.
    NoNodeFits,
    /// It has not run well yet, or does not any more; its agent says why.
    NotReady,
    /// It is ready, and has to be so for longer.
    NotAvailableYet,
    /// It has ended, and is made anew in its turn.
    Ended,
    /// Nothing of it is left, and its finalizers keep its object.
    PodFinalizing,

    // Sets.
    /// One of the pods that it wants is not available.
    WaitsForPod,
    /// A pod that it does not want any more is still there.
    WaitsForPodToGo,
    /// A pod cannot be made before something else has gone.
    WaitsToMakePod,
    /// The name of a pod that it wants belongs to a pod of somebody else.
    NameIsTaken,
    /// Its rollout rests.
    RolloutPaused,
    /// Its rollout has come to the partition, as it was told.
    RolloutPartitioned,
    /// Pods that are made anew by hand get the new revision, as it was told.
    RolloutByHand,

    // Claims.
    /// It is to go, and a pod still uses it.
    ClaimInUse,
    /// Its volume has vanished.
    VolumeLost,
    /// Its class gives a volume to one node at a time, and it asks for several.
    ClassCannotShare,
    /// Its class waits for a pod that uses it.
    WaitsForConsumer,
    /// No free volume fits, and nothing provisions one.
    NoVolumeFits,
    /// It is to go, and its finalizers keep it.
    ClaimFinalizing,

    // Nodes.
    /// Its agent is not heard.
    NodeUnreachable,
    /// Its pods are ending, because the machine goes down.
    NodeShuttingDown,
    /// It went down in good order, and nothing waits for it.
    NodeShutDown,
    /// It gets no new pods.
    NodeCordoned,
    /// It ends what is left of a former assignment before it gets work.
    NodeEndsLeftovers,
}
