//! Elements as trees, to compare two ways of reading them.

use cirrus_xml::Element;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tree {
    pub(crate) ns: String,
    pub(crate) name: String,
    /// Namespace, local name and value, sorted.
    pub(crate) attributes: Vec<(String, String, String)>,
    /// What stands directly inside, joined.
    pub(crate) text: String,
    pub(crate) children: Vec<Tree>,
}

impl Tree {
    pub(crate) fn of_element(element: &Element<'_>) -> Tree {
        let mut attributes: Vec<_> = element
            .attributes()
            .filter(|a| a.name != "xmlns" && !a.name.starts_with("xmlns:"))
            .map(|a| {
                let local = a.name.split_once(':').map_or(a.name, |(_, local)| local);
                let ns = element.attribute_ns(&a).into_owned();
                (ns, local.to_owned(), a.value().into_owned())
            })
            .collect();
        attributes.sort();
        Tree {
            ns: element.ns().to_owned(),
            name: element.name().to_owned(),
            attributes,
            text: element.text().into_owned(),
            children: element
                .children()
                .map(|child| Tree::of_element(&child))
                .collect(),
        }
    }
}
