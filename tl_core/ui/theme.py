"""How the page looks: colours, type, spacing, the mark. Nothing here is fetched from anywhere.

Must not know panels or data.
"""

from importlib.resources import files

import gradio as gr

NAME = "Teach an image classifier"
# A pile of photographs of which one has been told apart.
MARK = (
    '<svg viewBox="0 0 48 48" width="40" height="40" role="img" aria-label="A stack of pictures, one of them chosen">'
    '<rect x="5" y="13" width="26" height="26" rx="4" class="m3" transform="rotate(-8 18 26)"/>'
    '<rect x="11" y="10" width="26" height="26" rx="4" class="m2" transform="rotate(4 24 23)"/>'
    '<rect x="16" y="8" width="26" height="26" rx="4" class="m1"/>'
    '<path d="M22.5 21.5l4.6 4.6 8.6-9.4" class="tick"/></svg>'
)
_FAVICON = "mark.svg"

_GREEN = gr.themes.Color(
    name="moss",
    c50="#eff7f2",
    c100="#d8ecdf",
    c200="#b3d9c2",
    c300="#84bf9c",
    c400="#54a078",
    c500="#33855d",
    c600="#246a49",
    c700="#1d553b",
    c800="#194431",
    c900="#153829",
    c950="#0a2018",
)
_SAND = gr.themes.Color(
    name="sand",
    c50="#faf8f4",
    c100="#f3f0e9",
    c200="#e5e0d5",
    c300="#cfc8b9",
    c400="#a39c8d",
    c500="#777165",
    c600="#5a554b",
    c700="#45413a",
    c800="#2a2824",
    c900="#1c1b19",
    c950="#121110",
)


def make_theme() -> gr.themes.Base:
    theme = gr.themes.Base(
        primary_hue=_GREEN,
        secondary_hue=_GREEN,
        neutral_hue=_SAND,
        # Both weights in full come with Gradio; its file of the weight between lacks most letters.
        font=(gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md,
    )
    return theme.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_200",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
        button_large_text_weight="600",
        checkbox_label_background_fill="*neutral_50",
        checkbox_label_background_fill_dark="*neutral_950",
        checkbox_label_background_fill_selected="*primary_50",
        checkbox_label_background_fill_selected_dark="*primary_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_shadow="none",
        block_title_text_weight="600",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_950",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        layout_gap="16px",
    )


def styles() -> str:
    return files("tl_core.ui").joinpath("styles.css").read_text(encoding="utf-8")


def favicon() -> str:
    return str(files("tl_core.ui").joinpath(_FAVICON))


def header(shared: bool) -> str:
    """The top of the page: mark, name, and in one line what one can do here."""
    where = "No other visitor sees your pictures or models." if shared else "Everything stays on this computer."
    return (
        f'<header class="tl-header">{MARK}<div><h1>{NAME}</h1><p>Try a model, teach it your own classes, see how good '
        f"it became. {where}</p></div></header>"
    )
