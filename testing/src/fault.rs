//! What can go wrong with a call.

/// What becomes of a call instead of an ordinary answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this HTTP status; 429 and 503 ask for 30 s of patience.
    Status(u16),
    /// It is carried out, and the answer is lost with the connection.
    AnswerLost,
    /// It is not carried out, and the connection is cut.
    Cut,
    /// It is not carried out, and nobody ever answers.
    Silence,
    /// The caller dies before it is carried out.
    CrashBefore,
    /// It is carried out, and the caller dies before it has the answer.
    CrashAfter,
}

impl Fault {
    /// Is the call carried out all the same?
    pub(crate) const fn is_carried_out(self) -> bool {
        self.not_carried_out().is_some()
    }

    /// The same, to the caller, where the call is not carried out.
    pub(crate) const fn not_carried_out(self) -> Option<Self> {
        match self {
            Self::AnswerLost => Some(Self::Cut),
            Self::CrashAfter => Some(Self::CrashBefore),
            _ => None,
        }
    }
}
