"""What the page behind an unsubscribe link says, in the languages it knows.

Another language gets English. Invariant: every language has every sentence, with the same places for names in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from dispatcher.locales import chain

RIGHT_TO_LEFT = frozenset({"ar", "he"})
ENGLISH = "en"


@frozen
class Words:
    """The sentences. ``{sender}`` is the organization's name and ``{topic}`` a topic's title."""

    title: str
    ask_topic: str
    ask_all: str
    button: str
    done_title: str
    done_topic: str
    done_all: str


WORDS: Mapping[str, Words] = {
    "en": Words(
        "Unsubscribe",
        "Do you want to stop getting “{topic}” from {sender}?",
        "Do you want to stop getting messages from {sender}?",
        "Unsubscribe",
        "You are unsubscribed",
        "You will not get “{topic}” from {sender} this way any more.",
        "You will not get messages from {sender} this way any more.",
    ),
    "de": Words(
        "Abbestellen",
        "Möchten Sie „{topic}“ von {sender} nicht mehr erhalten?",
        "Möchten Sie keine Nachrichten von {sender} mehr erhalten?",
        "Abbestellen",
        "Sie haben sich abgemeldet",
        "Sie erhalten „{topic}“ von {sender} auf diesem Weg nicht mehr.",
        "Sie erhalten auf diesem Weg keine Nachrichten von {sender} mehr.",
    ),
    "es": Words(
        "Cancelar la suscripción",
        "¿Quiere dejar de recibir «{topic}» de {sender}?",
        "¿Quiere dejar de recibir mensajes de {sender}?",
        "Cancelar la suscripción",
        "Su suscripción se ha cancelado",
        "Ya no recibirá «{topic}» de {sender} por este medio.",
        "Ya no recibirá mensajes de {sender} por este medio.",
    ),
    "fr": Words(
        "Se désabonner",
        "Voulez-vous ne plus recevoir « {topic} » de {sender} ?",
        "Voulez-vous ne plus recevoir de messages de {sender} ?",
        "Se désabonner",
        "Vous êtes désabonné",
        "Vous ne recevrez plus « {topic} » de {sender} par ce moyen.",
        "Vous ne recevrez plus de messages de {sender} par ce moyen.",
    ),
    "it": Words(
        "Annulla l’iscrizione",
        "Non vuole più ricevere “{topic}” da {sender}?",
        "Non vuole più ricevere messaggi da {sender}?",
        "Annulla l’iscrizione",
        "Iscrizione annullata",
        "Non riceverà più “{topic}” da {sender} in questo modo.",
        "Non riceverà più messaggi da {sender} in questo modo.",
    ),
    "nl": Words(
        "Afmelden",
        "Wilt u “{topic}” van {sender} niet meer ontvangen?",
        "Wilt u geen berichten van {sender} meer ontvangen?",
        "Afmelden",
        "U bent afgemeld",
        "U ontvangt “{topic}” van {sender} niet meer op deze manier.",
        "U ontvangt geen berichten van {sender} meer op deze manier.",
    ),
    "pt": Words(
        "Cancelar inscrição",
        "Você quer deixar de receber “{topic}” de {sender}?",
        "Você quer deixar de receber mensagens de {sender}?",
        "Cancelar inscrição",
        "Sua inscrição foi cancelada",
        "Você não receberá mais “{topic}” de {sender} por este meio.",
        "Você não receberá mais mensagens de {sender} por este meio.",
    ),
    "ar": Words(
        "إلغاء الاشتراك",
        "هل تريد التوقف عن تلقي «{topic}» من {sender}؟",
        "هل تريد التوقف عن تلقي الرسائل من {sender}؟",
        "إلغاء الاشتراك",
        "تم إلغاء اشتراكك",
        "لن تتلقى «{topic}» من {sender} بهذه الطريقة بعد الآن.",
        "لن تتلقى رسائل من {sender} بهذه الطريقة بعد الآن.",
    ),
    "he": Words(
        "ביטול הרשמה",
        "האם ברצונך להפסיק לקבל את „{topic}” מאת {sender}?",
        "האם ברצונך להפסיק לקבל הודעות מאת {sender}?",
        "ביטול הרשמה",
        "ההרשמה בוטלה",
        "לא יישלחו אליך עוד „{topic}” מאת {sender} בדרך זו.",
        "לא יישלחו אליך עוד הודעות מאת {sender} בדרך זו.",
    ),
}


def language_for(locale: str | None) -> str:
    """The language of the page for a recipient's locale."""
    return next((tag for tag in chain(locale, ENGLISH) if tag in WORDS), ENGLISH)
